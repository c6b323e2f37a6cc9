"""Nothing in a file or on a command line ends in a traceback, a hang or a full memory.

MINISUM_FUZZ=N multiplies what is tried by N. Longer still: tests/fuzz_loop.py, tests/fuzz_argv.py.
"""

import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import fuzz_loop
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")

from data.reading.rows import read_rows
from minisum import checkpoint
from minisum.errors import UserError

ROOT = Path(__file__).parents[2]
TIMES = int(os.environ.get("MINISUM_FUZZ", "1"))
SEEDS = fuzz_loop.seeds()
MEMORY = 2 << 30  # address space of a child that reads a hostile file
PEAK = 512 << 10  # KiB that it may really use

longer = pytest.mark.skipif(TIMES == 1, reason="MINISUM_FUZZ=2 or more runs it")

odd_text = st.text(
    st.characters(exclude_categories=[]) | st.sampled_from("\"',\t\n\r\0\ufeff\u2028\\{}[]"),
    max_size=30,
)
odd_number = st.integers() | st.floats() | st.sampled_from([10**400, -(10**25), 1e308])
odd_value = st.recursive(
    st.none() | st.booleans() | odd_number | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["text", "label", "label_text", "size", "price", "date", "body"]) | odd_text


def read_all(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    for loader in fuzz_loop.LOADERS:
        fuzz_loop.read(loader, path)


@settings(max_examples=40 * TIMES)
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    packed=st.booleans(),
    seed=st.integers(0, 2**32),
    rounds=st.integers(1, 4),
)
def test_changed_files(tmp_path, kind, packed, seed, rounds):
    rng = fuzz_loop.random.Random(seed)
    content = SEEDS[kind]
    for _ in range(rounds):
        content = fuzz_loop.mutate(rng, content, list(SEEDS.values()))
    if packed:
        content = gzip.compress(content, 1)
        content = fuzz_loop.mutate(rng, content) if rng.random() < 0.3 else content
    read_all(tmp_path, f"a.{kind}.gz" if packed else f"a.{kind}", content)


@settings(max_examples=25 * TIMES)
@example(rows=[{"\n": None}])
@given(rows=st.lists(st.dictionaries(names, odd_value, max_size=5), min_size=1, max_size=6))
def test_any_json_objects(tmp_path, rows):
    lines = (json.dumps(row, ensure_ascii=True) for row in rows)
    read_all(tmp_path, "a.jsonl", "\n".join(lines).encode())


@settings(max_examples=25 * TIMES)
@given(
    header=st.lists(names, min_size=1, max_size=5),
    rows=st.lists(st.lists(odd_text | st.sampled_from(["1", "a", ""]), max_size=5), max_size=6),
    delimiter=st.sampled_from([",", "\t"]),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    mark=st.booleans(),
)
def test_any_cells(tmp_path, header, rows, delimiter, end, mark):
    text = "\ufeff" * mark + end.join(delimiter.join(cells) for cells in [header, *rows])
    kind = "csv" if delimiter == "," else "tsv"
    read_all(tmp_path, f"a.{kind}", text.encode("utf-8", "surrogatepass"))


@settings(max_examples=25 * TIMES)
@given(data=st.data())
def test_any_parquet_types(tmp_path, data):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    t = pyarrow
    types = [
        t.string(), t.large_string(), t.binary(), t.int8(), t.uint64(), t.float16(), t.float64(),
        t.bool_(), t.null(), t.date32(), t.date64(), t.timestamp("ns", "Europe/Paris"),
        t.timestamp("us"), t.time64("ns"), t.duration("ns"), t.decimal128(5, 2),
        t.list_(t.string()), t.struct([("a", t.int32())]), t.map_(t.string(), t.int64()),
        t.dictionary(t.int32(), t.string()), t.binary(4),
    ]  # fmt: skip
    columns, fields = [], []
    for name in data.draw(st.lists(names, min_size=1, max_size=4)):
        kind = data.draw(st.sampled_from(types))
        values = data.draw(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3,
                                    max_size=3))  # fmt: skip
        try:
            column = pyarrow.array(values).cast(kind)
        except (pyarrow.ArrowException, ValueError):
            texts = [None if v is None else str(v) for v in values]
            try:
                column = pyarrow.array(texts).cast(kind)
            except (pyarrow.ArrowException, ValueError):
                column = pyarrow.nulls(3, kind)
        columns.append(column)
        fields.append(name.encode("utf-8", "replace").decode())
    path = tmp_path / "a.parquet"
    try:
        parquet.write_table(pyarrow.Table.from_arrays(columns, fields), path)
    except (pyarrow.ArrowException, ValueError):
        return
    for loader in fuzz_loop.LOADERS:
        fuzz_loop.read(loader, path)


def test_damaged_descriptions_do_not_end_the_process(tmp_path):
    """Every byte of a parquet file's footer, one at a time; in a child, for the library is C++."""
    pytest.importorskip("pyarrow")
    script = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import fuzz_loop
from pathlib import Path
path = Path(sys.argv[1])
good = fuzz_loop.seeds()["parquet"]
footer = int.from_bytes(good[-8:-4], "little") + 8
for place in range(len(good) - footer, len(good)):
    for bit in (0, 5) if {TIMES} > 1 else (place % 8,):
        changed = bytearray(good)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        fuzz_loop.read("rows", path)
print("survived", footer)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.parquet")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stdout.startswith("survived"), shown.stderr[-2000:]


def test_inputs_that_reach_further(tmp_path):
    """The coverage-guided loop, briefly; it also feeds the reader of checkpoints."""
    fuzzer = fuzz_loop.fuzz(tmp_path, seed=1, steps=250 * TIMES)
    assert fuzzer.tried == 250 * TIMES and len(fuzzer.corpus) >= len(SEEDS) * 10 + 4
    assert not fuzzer.found, fuzzer.found


@settings(max_examples=40 * TIMES)
@given(seed=st.integers(0, 2**32))
def test_checkpoints_with_pieces_of_others(tmp_path, seed):
    rng = fuzz_loop.random.Random(seed)
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"a": fuzz_loop.np.arange(9.0), "b": fuzz_loop.np.zeros(3)}, {"n": 1})
    good = path.read_bytes()
    path.write_bytes(fuzz_loop.mutate(rng, good, [good, b'"sha256"', b'"__metadata__"', b'"F64"']))
    try:
        arrays, meta = checkpoint.load(path)
    except UserError:
        return
    assert meta == {"n": 1} and sorted(arrays) == ["a", "b"]
    assert arrays["a"].tolist() == list(range(9)) and not arrays["b"].any()


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_command_lines():
    pytest.importorskip("tokenizers")
    script = ROOT / "tests" / "fuzz_argv.py"
    command = [sys.executable, str(script), str(40 * TIMES), "3"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr[-5000:] + shown.stdout
    assert "0 defects" in shown.stdout


def packed(piece, times=1):
    packer = zlib.compressobj(9, wbits=31)
    return (packer.compress(piece) + packer.flush()) * times


def bomb(path):
    """10 MB that become 10 GB."""
    path.write_bytes(packed(bytes(1 << 20), 10 << 10))
    assert path.stat().st_size < 11e6


def repeated_lines(path):
    piece = b"text,label\n" + b"some words,a\n" * (1 << 16)
    path.write_bytes(packed(piece, 200))


def long_line(path):
    with open(path, "wb") as file:
        file.truncate(200_000_000)  # zeros, which are legal characters


def open_quote(path):
    path.write_bytes(b'text,label\n"' + (b"a" * 1000 + b"\n") * 100_000)


def one_value_again_and_again(path):
    """A megabyte of text a hundred thousand times over, in a few kilobytes."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    index = pyarrow.array([0] * 100_000, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(index, pyarrow.array(["x" * 1_000_000]))
    for name, schema in (("", True), (".plain", False)):
        table = pyarrow.table({"text": column, "label": column})
        parquet.write_table(table, f"{path}{name}", store_schema=schema)
        assert os.stat(f"{path}{name}").st_size < 200_000
    os.replace(f"{path}.plain", path.with_name("plain.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS")
@pytest.mark.parametrize(
    "make, name, words",
    [
        (bomb, "a.csv.gz", "200 times its size"),
        (long_line, "a.jsonl", "longer than 67,108,864 bytes"),
        (one_value_again_and_again, "plain.parquet", "200 times its size"),
        pytest.param(bomb, "a.parquet.gz", "200 times its size", marks=longer),
        pytest.param(repeated_lines, "a.csv.gz", "200 times its size", marks=longer),
        pytest.param(long_line, "a.csv", "longer than 67,108,864 bytes", marks=longer),
        pytest.param(open_quote, "a.csv", "field larger than", marks=longer),
        pytest.param(one_value_again_and_again, "a.parquet", "200 times", marks=longer),
    ],
)
def test_hostile_sizes(tmp_path, make, name, words):
    """A child with little address space reads the file, refuses it, and says how much it took."""
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    make(tmp_path / ("a.parquet" if name == "plain.parquet" else name))
    script = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from data.sets.classification import load_classification
from minisum.errors import UserError
try:
    load_classification(data_file=sys.argv[1])
except UserError as error:
    print(error)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    command = [sys.executable, "-c", script, str(tmp_path / name)]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert shown.returncode == 0, shown.stderr[-1000:]
    sentence, peak = shown.stdout.splitlines()
    assert words in sentence and name in sentence
    assert int(peak) < PEAK, f"{int(peak):,} KiB"


def test_what_is_small_may_repeat_itself(tmp_path):
    """The limit on the ratio is for large files: a table of one row repeated is no attack."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed(b"text,label\n" + b"same words,a\n" * 500_000))
    assert path.stat().st_size * 200 < 6_500_000
    assert sum(1 for _ in read_rows(path)) == 500_000
