"""Every reader gives the rows that were written, or one sentence about the damage."""

import csv
import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.reading.rows import file_kind, read_rows
from minisum.errors import UserError

quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def written(folder, name, content):
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def refused(path, *parts, **limits):
    with pytest.raises(UserError) as caught:
        list(read_rows(path, **limits))
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\nred,1\n"blue, ""deep""",2\n'),
        ("a.csv", '\ufefftext,label\r\nred,1\r\n\r\n"blue, ""deep""",2'),
        ("a.tsv", 'text\tlabel\nred\t1\n"blue, ""deep"""\t2\n'),
        ("a.jsonl", '{"text": "red", "label": "1"}\n\n{"text": "blue, \\"deep\\"", "label": "2"}'),
        ("a.jsonl", '\ufeff{"text":"red","label":"1"}\r\n{"text":"blue, \\"deep\\"","label":"2"}'),
        ("A.CSV", 'text,label\nred,1\n"blue, ""deep""",2\n'),
    ],
)
def test_formats_agree(tmp_path, name, ending, content):
    rows = list(read_rows(written(tmp_path, name + ending, content)))
    assert rows == [{"text": "red", "label": "1"}, {"text": 'blue, "deep"', "label": "2"}]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_text_lines_are_rows(tmp_path, ending):
    path = written(tmp_path, "a.txt" + ending, "one\r\n\nthree é\u2028still three")
    assert [row["text"] for row in read_rows(path)] == ["one", "", "three é\u2028still three"]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_parquet(tmp_path, ending):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"text": [f"é{i}" for i in range(3000)], "label": list(range(3000))}
    plain = tmp_path / "plain.parquet"
    parquet.write_table(pyarrow.table(columns), plain)
    path = written(tmp_path, "a.parquet" + ending, plain.read_bytes())
    assert list(read_rows(path)) == [{"text": f"é{i}", "label": i} for i in range(3000)]
    refused(path, "more than 100 bytes", max_bytes=100)


@quick
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n))))
def test_csv_gives_back_what_the_csv_module_wrote(tmp_path, table):
    path = tmp_path / "a.csv"
    header = [f"column {i}" for i in range(len(table[0]) if table else 1)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *table])
    if table:
        assert list(read_rows(path)) == [dict(zip(header, row, strict=True)) for row in table]
    else:
        refused(path, "no rows")


@quick
@given(st.lists(st.dictionaries(cells, cells | st.integers() | st.none()), min_size=1))
def test_jsonl_gives_back_what_the_json_module_wrote(tmp_path, table):
    path = written(tmp_path, "a.jsonl.gz", "\n".join(json.dumps(row) for row in table))
    assert list(read_rows(path)) == table


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", b"text,label\nred,1\nblue\n", ["line 3", "1 cell ", "2 columns"]),
        ("a.csv", b"text,label\nred,1,2\n", ["line 2", "3 cells"]),
        ("a.csv", b"text,label\nred,1\n\xff,2\n", ["line 3", "not UTF-8"]),
        ("a.csv", b'text,label\n"never closed,1\nblue,2\n', ["line 3"]),
        ("a.csv", b'text\nred\n"never closed\nblue\n', ["line 4"]),
        ("a.csv", b'text,label\n"red" wine,1\n', ["line 2"]),
        ("a.csv", b"text,label\rred,1\r", ["line 1"]),
        ("a.csv", b"text,\nred,1\n", ["header", "column 2"]),
        ("a.csv", b"text,text\nred,1\n", ["header", "'text' twice"]),
        ("a.csv", b"text,label\n", ["no rows"]),
        ("a.tsv", b"text\tlabel\nred\n", ["line 2"]),
        ("a.jsonl", b'{"text": 1}\n{"text": \n', ["line 2", "not JSON"]),
        ("a.jsonl", b'{"text": 1}\n[1]\n', ["line 2", "not a JSON object"]),
        ("a.jsonl", b'{"text": %s}' % (b"1" * 5000), ["line 1", "out of bounds"]),
        ("a.jsonl", b"[" * 200_000, ["line 1"]),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "\xe9"}\n', ["line 3", "not UTF-8"]),
        ("a.txt", "é".encode("utf-16"), ["line 1", "not UTF-8"]),
    ]
    + [(f"a.{kind}", b"", ["no rows"]) for kind in ("csv", "tsv", "jsonl", "txt")],
)
def test_damage_is_named(tmp_path, name, ending, content, parts):
    refused(written(tmp_path, name + ending, content), *parts)


def test_rows_before_the_damage_are_given(tmp_path):
    rows = read_rows(written(tmp_path, "a.csv", "text\nred\nblue,2\n"))
    assert next(rows) == {"text": "red"}
    with pytest.raises(UserError, match="line 3"):
        next(rows)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.parquet"])
def test_broken_gzip(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    packed = gzip.compress(b"".join(b'{"a": "%d"}\n' % (i * i) for i in range(500)))
    path = tmp_path / (name + ".gz")
    broken_checksum = packed[:-8] + b"\0" * 8
    for content in (packed[:-4], packed[:30], b"plain text", broken_checksum, packed + b"tail"):
        path.write_bytes(content)
        refused(path, "not a complete gzip")


def test_a_bomb_is_defused(tmp_path):
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b"a" * (1 << 20)) for _ in range(96)) + packer.flush()
    path = tmp_path / "a.csv.gz"
    path.write_bytes(bomb)
    refused(path, "more than 200 times its size")
    long_line = written(tmp_path, "long.csv.gz", "a" * (2 << 20))
    refused(long_line, "line 1", "1,048,576", max_line=1 << 20)
    many_lines = written(tmp_path, "a.txt.gz", "line\n" * 100_000)
    refused(many_lines, "more than 1,000 bytes", max_bytes=1000)
    refused(many_lines, "longer than 4 bytes", max_line=4)
    refused(many_lines, "more than 499,999 bytes", max_bytes=499_999)
    assert sum(1 for _ in read_rows(many_lines, max_bytes=500_000, max_line=5)) == 100_000


def test_a_long_field_is_read(tmp_path):
    long = "word " * 100_000
    assert len(long) > 131_072  # the csv module's own default limit
    path = written(tmp_path, "a.csv", f"text,label\n{long},1\n")
    assert next(read_rows(path))["text"] == long


def test_what_is_not_a_data_file(tmp_path):
    for folder in ("folder", "folder.csv"):
        (tmp_path / folder).mkdir()
    for file in ("a.xlsx", "a.gz", "csv"):
        (tmp_path / file).touch()
    for name, part in [
        ("folder", "is a directory"),
        ("folder.csv", "is a directory"),
        ("missing.csv", "does not exist"),
        ("a.xlsx", "unknown suffix"),
        ("a.gz", "unknown suffix"),
        ("csv", "unknown suffix"),
        ("a" * 300 + ".csv", "cannot be read"),
    ]:
        # Raised by the call itself, before the first row is asked for.
        with pytest.raises(UserError, match=part):
            read_rows(tmp_path / name)


def test_file_kind():
    assert file_kind("x/y.JSONL.GZ") == (".jsonl", True)
    assert file_kind("x.tar.csv") == (".csv", False)


@quick
@given(
    st.sampled_from(["csv", "tsv", "jsonl", "txt", "parquet"]),
    st.booleans(),
    st.binary(max_size=60) | st.text('{}[]":,\n\r\t a1\0', max_size=40).map(str.encode),
)
def test_any_bytes_give_rows_or_a_user_error(tmp_path, kind, packed, content):
    path = tmp_path / (f"a.{kind}.gz" if packed else f"a.{kind}")
    path.write_bytes(content)
    try:
        assert all(isinstance(row, dict) for row in read_rows(path))
    except UserError as error:
        assert path.name in str(error)


@quick
@given(st.data())
def test_flipped_bytes_give_rows_or_a_user_error(tmp_path, data):
    kind = data.draw(st.sampled_from(["csv.gz", "parquet"]))
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"text": ["red", "blue"] * 9, "label": [1, 2] * 9}), path)
    else:
        written(tmp_path, path.name, "text,label\n" + "red,1\nblue,2\n" * 9)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        list(read_rows(path))
    except UserError as error:
        assert path.name in str(error)
