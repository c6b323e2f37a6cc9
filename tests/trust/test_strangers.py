"""A stranger's folder or file costs little and touches nothing else, with valid checksums too.

MINISUM_FUZZ=N multiplies what is tried by N. Longer still: tests/fuzz_folders.py.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import minisum
from data.reading.rows import read_rows
from minisum import checkpoint, machine
from minisum.errors import UserError, visible
from minisum.runs import schema
from minisum.text import tokenizer as text_tokenizer
from minisum.text.tokenizer import encode, load_tokenizer, save_tokenizer, train_tokenizer

ROOT = Path(__file__).parents[2]
TIMES = int(os.environ.get("MINISUM_FUZZ", "1"))
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """task -> (data, a run of two epochs, one of three)."""
    return {
        task: tiny_runs.trained(tmp_path_factory.mktemp(task), task) for task in tiny_runs.TASKS
    }


def within(program, *arguments, gigabytes=1.0, seconds=10):
    """(standard output, peak MiB) of a program that may take so much more memory and time.

    The time is that of its processor, whatever else the machine does; who waits takes none.
    """
    program = f"""
import resource, sys
import numpy, minisum, data.sets.classification, minisum.runs.estimator
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int({gigabytes} * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
{program}
status = open("/proc/self/status").read()  # ru_maxrss begins with that of the parent
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
    shown = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=10 * seconds,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-2000:]
    *lines, peak = shown.stdout.splitlines()
    return lines, int(peak)


@linux
def test_crafted_folders():
    command = [sys.executable, "tests/fuzz_folders.py", str(60 * TIMES), "11"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and ", 0 defects" in shown.stdout, shown.stderr[-3000:]


LOAD = """
from minisum.errors import UserError
try:
    minisum.load(sys.argv[1])
except UserError as error:
    print(error)
"""
HUGE = [
    {"width": 2**16}, {"vocab": 2**24}, {"classes": 2**24}, {"max_len": 2**24},
    {"width": 2**16, "vocab": 2**24, "max_len": 2**24}, {"mixer": "mean_embedding"},
    {"kind": "encoder_classifier", "mixer": "tssa", "encoder": {"layers": 10**6}},
    {"kind": "language_model", "layers": "attention*1024," * 1000 + "attention"},
    {"kind": "forecaster", "window": 2**24, "horizon": 2**24, "patch": 2**12, "stride": 1},
]  # fmt: skip


@linux
@pytest.mark.parametrize("sizes", HUGE, ids=str)
def test_a_few_bytes_cannot_ask_for_much(runs, tmp_path, sizes):
    """Consistent sizes that the arrays do not bear out; every checksum is right."""
    run = tmp_path / "run"
    shutil.copytree(runs["classifier"][1], run)
    arrays, meta = checkpoint.load(run / "best.safetensors")
    meta["model_spec"]["model"] |= sizes
    checkpoint.save(run / "best.safetensors", arrays, meta)
    lines, peak = within(LOAD, run, gigabytes=0.5)
    assert len(lines) == 1 and "best.safetensors" in lines[0] and peak < 512


@pytest.mark.parametrize("task", tiny_runs.TASKS)
def test_every_argument_of_a_model_is_of_its_type(runs, tmp_path, task):
    """Exchanged for others with right checksums: it answers, or one sentence refuses it."""
    run = tmp_path / "run"
    shutil.copytree(runs[task][1], run)
    arrays, meta = checkpoint.load(run / "best.safetensors")
    for name, right in meta["model_spec"]["model"].items():
        for odd in (None, True, "a", 1.5, [], {"a": 1}):
            model = meta["model_spec"]["model"] | {name: odd}
            changed = meta | {"model_spec": meta["model_spec"] | {"model": model}}
            checkpoint.save(run / "best.safetensors", arrays, changed)
            try:
                found = minisum.load(run)
                if task == "classifier":
                    found.predict(["a small cat", ""])
                elif task == "causal":
                    found.generate("a", 2)
            except UserError as error:
                assert repr(odd) != repr(right) and len(str(error).splitlines()) == 1
            else:
                assert not isinstance(odd, (dict, list)), (name, odd)


def test_shapes_are_learned_without_drawing(runs, monkeypatch):
    """What loading makes of the model before its arrays are compared takes no generator."""
    monkeypatch.setattr(np.random, "default_rng", lambda *seed: pytest.fail("something was drawn"))
    for task in tiny_runs.TASKS:
        assert minisum.load(runs[task][1]).task == task
    shapes = schema.Undrawn().normal(0, 1, (10**6, 10**6)).shape, schema.Undrawn().uniform().shape
    assert shapes == ((10**6, 10**6), ())


@linux
def test_a_sparse_file_of_eight_gigabytes(runs, tmp_path):
    shutil.copytree(runs["classifier"][1], tmp_path / "run")
    with open(tmp_path / "run" / "best.safetensors", "wb") as file:
        file.truncate(8 << 30)
    lines, peak = within(LOAD, tmp_path / "run", gigabytes=0.5)
    assert len(lines) == 1 and "best.safetensors is damaged" in lines[0] and peak < 512


def test_headers_that_do_not_describe_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"a": np.arange(9.0)}, {"n": 1})
    good = path.read_bytes()
    for content in (good + b"\0", good[:-1], good[:8], b"\xff" * 16, good.replace(b"[9]", b"[8]")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(path)


@linux
def test_a_wide_table_is_read_in_linear_time(tmp_path):
    """100,000 columns, with a header that is right, and with one that names a column twice."""
    path = tmp_path / "a.csv"
    names = [f"c{i}" for i in range(100_000)]
    path.write_text(",".join(names) + "\n" + ",".join("1" * 100_000) + "\n")
    began = time.process_time()
    assert len(next(read_rows(path))) == 100_000
    path.write_text(",".join([*names, "c7"]) + "\n")
    with pytest.raises(UserError, match="'c7' twice"):
        next(read_rows(path))
    assert time.process_time() - began < 5
    path.write_text(",".join(names) + "\n" + ",".join("1" * 100_000) + "\n")
    program = """
from data.sets.classification import load_classification
try:
    load_classification(data_file=sys.argv[1])
except ValueError as error:
    print(len(str(error)))
"""
    lines, _ = within(program, path)
    assert int(lines[0]) < 5000


@linux
def test_a_cell_of_many_megabytes(tmp_path):
    """Of its words only those are made tokens that the model reads."""
    path = tmp_path / "a.csv"
    path.write_text(
        "text,label\n"
        + "word other " * (5_500_000 if TIMES > 1 else 1_500_000)
        + ",a\n"
        + "".join(f"b{i},b\nc{i},a\n" for i in range(50))
    )
    program = """
from data.sets.classification import load_classification
from minisum.text.tokenizer import TextReader, train_tokenizer
splits = load_classification(data_file=sys.argv[1]).splits
texts = [text for part in splits.values() for text in part.texts]
tokenizer = train_tokenizer(texts, sys.argv[2], 300)
encoded = TextReader(tokenizer, 64).encode([max(texts, key=len)])
print(encoded.lengths.tolist())
"""
    for kind in ("word", "bpe"):
        lines, peak = within(program, path, kind, seconds=60)
        assert lines == ["[64]"] and peak < 1024


LONG = st.lists(
    st.sampled_from(["a", "word", "Σας", "x" * 30, "12", "don't", ".", "é", "漢字", "it's "]),
    min_size=1, max_size=40,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["word", "bpe"])
@given(
    words=LONG,
    gaps=st.lists(
        st.sampled_from([" ", " ", "  ", "\n", "\t", "", " \n "]), min_size=40, max_size=40
    ),
    at_most=st.none() | st.integers(0, 30),
    keep=st.sampled_from(["first", "last"]),
    drop=st.booleans(),
    piece=st.integers(3, 40),
)
def test_pieces_give_the_tokens_of_the_whole(kind, words, gaps, at_most, keep, drop, piece):
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    tokenizer = train_tokenizer(["a word Σας it's 12 é", "word " * 5], kind, 300)
    with pytest.MonkeyPatch.context() as patch:
        (whole,) = encode(tokenizer, [text], drop)
        patch.setattr(text_tokenizer, "PIECE", piece)
        parts = list(text_tokenizer.pieces(text))
        assert "".join(parts) == text and (len(text) <= piece or len(parts) <= len(text))
        (found,) = encode(tokenizer, [text], drop, at_most, keep)
    needed = len(whole) if at_most is None else min(at_most, len(whole))
    if keep == "first":
        assert found[:needed].tolist() == whole[:needed].tolist()
    else:
        assert found[len(found) - needed :].tolist() == whole[len(whole) - needed :].tolist()


@linux
def test_many_classes_are_judged_in_batches(tmp_path):
    """50,000 classes: the logits of the whole test split alone would take 1 GB."""
    program = """
import types
import numpy as np
from train.classifier import Classification
from minisum.text.batches import Ragged
N, C = 5_000, 50_000
task = object.__new__(Classification)
task.config = types.SimpleNamespace(batch_size=64, mixer="summation")
task.data = types.SimpleNamespace(class_names=range(C))
task.labels = {"test": np.arange(N) % C}
task.texts = {"test": Ragged(np.zeros(0, np.int32), np.zeros(N + 1, int))}
task.batch = lambda split, rows: rows
task.temperature = 1.0
logits = np.zeros((64, C), np.float32)
def predict(rows):
    logits[:] = 0
    logits[np.arange(len(rows)), (rows + rows % 2) % C] = 9
    return logits[: len(rows)]
print(round(task.evaluate("test", predict)["accuracy"], 3))
"""
    lines, peak = within(program, gigabytes=0.5, seconds=60)
    assert lines == ["0.5"] and peak < 700


def test_control_characters_are_shown_escaped(capsys, runs, tmp_path):
    assert visible("a\x1b[2J\u202eb\x9b\r\n\tc") == "a\\x1b[2J\\u202eb\\x9b\\r\n\tc"
    assert visible("naïve 漢字 \u200d") == "naïve 漢字 \u200d"
    path = tmp_path / "a\x1b]0;owned\x07.csv"
    path.write_text("text,label\nx\x1b[31m,a\n")
    with pytest.raises(UserError) as refused:
        list(read_rows(path.with_suffix(".odd\x1b")))
    assert "\x1b" not in str(refused.value) and "\\x1b" in str(refused.value)
    data = tmp_path / "rows\x1b[5m.jsonl"
    rows = runs["classifier"][0].read_text().replace('"cat"', '"c\\u001b[7mat"')
    data.write_text(rows)
    out = tmp_path / "run"
    assert tiny_runs.train("classifier", data, out, "--epochs", 1) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "\\x1b[5m" in shown.out


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_only_the_two_forms_of_tokenizers_are_read(tmp_path, kind):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(train_tokenizer(["some words here"] * 3, kind, 270), path)
    content = json.loads(path.read_text())
    assert load_tokenizer(path).get_vocab_size() > 2
    slow = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    many = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6}
    template = {"type": "BertProcessing", "sep": ["[UNK]", 1], "cls": ["[PAD]", 0]}
    for part, value in (("pre_tokenizer", slow), ("normalizer", many), ("post_processor", template),
                        ("pre_tokenizer", None), ("normalizer", {"type": "NFC"}),
                        ("truncation", {"max_length": 1, "strategy": "LongestFirst", "stride": 0,
                                        "direction": "Right"})):  # fmt: skip
        path.write_text(json.dumps(content | {part: value}))
        with pytest.raises(UserError, match="was not made by this program, or is damaged"):
            load_tokenizer(path)


def test_a_tokenizer_of_another_form_is_refused_with_its_digest(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["causal"][1], run)
    content = json.loads((run / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}
    (run / "tokenizer.json").write_text(json.dumps(content))
    arrays, meta = checkpoint.load(run / "best.safetensors")
    digest = hashlib.sha256((run / "tokenizer.json").read_bytes()).hexdigest()
    meta["origin"]["tokenizer"] = digest
    checkpoint.save(run / "best.safetensors", arrays, meta)
    with pytest.raises(UserError, match="does more than split a text into byte pairs"):
        minisum.load(run)


def test_other_arithmetic_is_said(capsys, runs, tmp_path, monkeypatch):
    """A processor, NumPy or BLAS with other last bits, of which a run cannot keep its own."""
    run = tmp_path / "run"
    shutil.copytree(runs["classifier"][1], run)
    assert tiny_runs.call("classifier", "--resume", "--out", run) == 0
    assert "to rounding" not in capsys.readouterr().err
    monkeypatch.setattr(machine, "arithmetic", lambda: "arithmetic 0 of NumPy 9")
    assert tiny_runs.call("classifier", "--resume", "--out", run, "--epochs", 3) == 0
    said = capsys.readouterr().err
    assert "goes on with 1 thread by arithmetic 0 of NumPy 9" in said and "to rounding" in said


def test_arithmetic_is_the_same_twice_and_another_with_other_bits(monkeypatch):
    before = machine.arithmetic()
    assert machine.arithmetic() == before
    exp = np.exp
    monkeypatch.setattr(np, "exp", lambda x: np.nextafter(exp(x), np.float32(np.inf)))
    assert machine.arithmetic() != before


def test_a_cosine_that_ends_elsewhere_is_said(capsys, runs, tmp_path):
    data, out = runs["classifier"][0], tmp_path / "run"
    cosine = ["--schedule", "cosine", "--epochs"]
    assert tiny_runs.train("classifier", data, out, *cosine, 2) == 0
    capsys.readouterr()
    assert tiny_runs.call("classifier", "--resume", "--out", out) == 0
    assert "cosine" not in capsys.readouterr().err
    assert tiny_runs.call("classifier", "--resume", "--out", out, "--epochs", 4) == 0
    assert "now ends after 4 epochs, not after 2" in capsys.readouterr().err
    assert tiny_runs.call("classifier", "--resume", "--out", out, "--epochs", 3) == 2
    assert "the run is in epoch 4 already" in capsys.readouterr().err


def test_a_state_that_is_none(capsys, runs, tmp_path):
    """Positions, histories and vectors that no training leaves; every checksum is right."""
    run = tmp_path / "run"
    shutil.copytree(runs["classifier"][1], run)
    path = run / "last.safetensors"
    arrays, meta = checkpoint.load(path)
    position = meta["position"]
    changes = [
        {"epoch": 1}, {"epoch": 2**60}, {"epoch": True}, {"step": -1}, {"history": []}, {"more": 1},
        {"loss_sum": "1"}, {"seconds": None}, {"history": position["history"] * 2},
        {"history": [{"epoch": 1}] * 2},
    ]  # fmt: skip
    metas = [meta | {"position": position | change} for change in changes]
    metas += [meta | {"adam_steps": -1}, meta | {"origin": []}, {}, [], {"position": position}]
    broken = [(arrays, other) for other in metas]
    vector = arrays["params"]
    for change in (
        {"params": vector[:1]},
        {"best": vector[:-1]},
        {"m": vector[None]},
        {"x": vector},
    ):
        broken.append((arrays | change, meta))
    broken.append(({name: array for name, array in arrays.items() if name != "best"}, meta))
    for other_arrays, other in broken:
        checkpoint.save(path, other_arrays, other)
        capsys.readouterr()
        assert tiny_runs.call("classifier", "--resume", "--out", run, "--epochs", 3) == 2, other
        errors = capsys.readouterr().err
        assert errors.count("error: ") == 1 and "Traceback" not in errors


@pytest.mark.parametrize("number", [2**31, 2**32 - 1])
def test_a_vocabulary_with_holes(runs, tmp_path, number):
    """The library lists every number that is left out: four billion take all memory."""
    for task in ("classifier", "causal"):
        run = tmp_path / task
        shutil.copytree(runs[task][1], run)
        content = json.loads((run / "tokenizer.json").read_text())
        content["model"]["vocab"][list(content["model"]["vocab"])[-1]] = number
        (run / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="number its tokens from 0|not made by this program"):
            minisum.load(run)
