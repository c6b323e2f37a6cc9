"""Coverage-guided fuzzing of everything that reads a file: python tests/fuzz_loop.py --seconds 600

A small evolutionary loop. Inputs are changed at random; an input that makes the readers take a
branch (from one line to another) that none took before joins the corpus and is changed in turn.
UserError is the only refusal allowed: any other exception is printed with the input that caused it.
"""

import argparse
import gzip
import hashlib
import io
import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data.reading.rows import read_rows  # noqa: E402
from data.sets import classification, forecast, language, multimodal  # noqa: E402
from minisum import checkpoint  # noqa: E402
from minisum.columns import Standardiser  # noqa: E402
from minisum.errors import UserError  # noqa: E402

LOADERS = ("rows", "classification", "language", "multimodal", "forecast")
FORMATS = ("csv", "tsv", "jsonl", "txt", "parquet")
TRACED = tuple(str(ROOT / part) for part in ("data", "minisum/checkpoint.py"))

# What trips readers, whatever the format.
TOKENS = [
    b'"', b'""', b"'", b",", b"\t", b";", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", "\u2028".encode(), "\x85".encode(), "é".encode(),
    b"{", b"}", b"[", b"]", b":", b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"1e999",
    b"1e308", b"-0", b"9" * 25, b"9" * 4400, b'"\\ud800"', b"\\u0000", b"\\", b"1_000", b" ",
    b"text", b"label", b"label_text", b"date", b"size", b"price", b'"text": ', b'{"text": "x"}',
    b"{}", b"[" * 900, b'{"a":' * 300, b"x" * 140_000, b"2024-01-01", b"9999-12-31",
    b"\x1f\x8b\x08",
    b"PAR1", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
]  # fmt: skip


def seeds():
    """format -> bytes of a small valid file that every loader can use."""
    rows = [
        {"text": f"word{i} {'meow' if i % 2 else 'woof'}", "label": "ab"[i % 2], "size": i % 7,
         "price": 1.5 * i}
        for i in range(40)
    ]  # fmt: skip

    def table(delimiter):
        lines = [delimiter.join(rows[0])] + [delimiter.join(map(str, r.values())) for r in rows]
        return "\n".join(lines).encode() + b"\n"

    found = {
        "csv": table(","),
        "tsv": table("\t"),
        "jsonl": "\n".join(json.dumps(row) for row in rows).encode(),
        "txt": "\n".join(row["text"] for row in rows).encode(),
    }
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return found
    stream = io.BytesIO()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    parquet.write_table(pyarrow.table(columns), stream)
    return found | {"parquet": stream.getvalue()}


def mutate(rng, content, others=()):
    """`content` with a few random changes; `others` lend pieces."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(changed) + 1)
        size = rng.choice([1, 1, 2, 4, 16, 64, len(changed)])
        kind = rng.randrange(9)
        if kind == 0:
            changed[at:at] = rng.choice(TOKENS)
        elif kind == 1:
            changed[at : at + size] = rng.choice(TOKENS)
        elif kind == 2 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del changed[at : at + size]
        elif kind == 4:
            changed[at:at] = changed[at : at + size]
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            changed[at : at + size] = rng.randbytes(min(size, 64))
        elif kind == 7 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            changed[at : at + size] = other[start : start + rng.choice([4, 16, 64])]
        else:
            lines = bytes(changed).split(b"\n")
            rng.shuffle(lines) if rng.random() < 0.3 else lines.insert(0, rng.choice(lines))
            changed = bytearray(b"\n".join(lines))
    return bytes(changed[: 1 << 20])


def read(loader, path):
    """Read `path` as the loader of a task does, to the end. UserError is an answer."""
    try:
        if loader == "rows":
            assert all(isinstance(row, dict) for row in read_rows(path))
        elif loader == "classification":
            data = classification.load_classification(data_file=path)
            labels = data.splits["train"].labels
            assert labels.min() >= 0 and labels.max() < len(data.class_names)
            assert len(data.sha256) == 64
        elif loader == "language":
            assert all(language.load_language(data_file=path, validation=0.2).splits.values())
        elif loader == "multimodal":
            data = multimodal.load_multimodal(
                data_file=path, text_column="text", numeric_columns=["size"], target="price"
            )
            numbers = data.splits["train"].numbers
            fit = Standardiser.fit(numbers, data.columns.numbers)
            assert np.isfinite(fit(numbers)).all() and len(data.sha256) == 64
        elif loader == "forecast":
            forecast.Windows(forecast.load_series(data_file=path), "standard", 4, 2)
        else:
            checkpoint.load(path)
    except UserError as error:
        assert str(error).strip() and "\n" not in str(error), repr(error)


class Coverage:
    """The branches (line to line) that code under TRACED takes, by sys.monitoring or settrace."""

    def __init__(self):
        self.seen, self.fresh, self.last = set(), False, None
        self.codes = {}

    def note(self, code, line):
        arc = (code, self.last, line)
        self.last = line
        if arc not in self.seen:
            self.seen.add(arc)
            self.fresh = True

    def wanted(self, code):
        if code not in self.codes:
            self.codes[code] = code.co_filename.startswith(TRACED)
        return self.codes[code]

    def __enter__(self):
        self.fresh, self.last = False, None
        if hasattr(sys, "monitoring"):
            tool, events = sys.monitoring, sys.monitoring.events
            tool.use_tool_id(tool.PROFILER_ID, "fuzz_loop")

            def on_line(code, line):
                if not self.wanted(code):
                    return tool.DISABLE
                return self.note(code, line)

            tool.register_callback(tool.PROFILER_ID, events.LINE, on_line)
            tool.set_events(tool.PROFILER_ID, events.LINE)
        else:
            self.before = sys.gettrace()
            sys.settrace(self.on_call)
        return self

    def __exit__(self, *error):
        if hasattr(sys, "monitoring"):
            sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
            sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)
        else:
            sys.settrace(self.before)

    def on_call(self, frame, event, argument):
        return self.on_line if self.wanted(frame.f_code) else None

    def on_line(self, frame, event, argument):
        if event == "line":
            self.note(frame.f_code, frame.f_lineno)
        return self.on_line


class Fuzzer:
    """Inputs are (file name, content, loader); found: those that raised what they must not."""

    def __init__(self, seed, folder):
        self.rng, self.folder = random.Random(seed), Path(folder)
        self.coverage, self.found, self.tried = Coverage(), {}, 0
        self.corpus = [
            (f"a.{kind}{packed}", content, loader)
            for kind, content in seeds().items()
            for packed in ("", ".gz")
            for loader in LOADERS
        ]
        path = self.folder / "seed"
        checkpoint.save(path, {"a": np.arange(6.0), "b": np.zeros((2, 0), "f4")}, {"epoch": 1})
        self.corpus += [("a.safetensors", path.read_bytes(), "checkpoint")] * 4
        self.pool = [content for _, content, _ in self.corpus]

    def step(self):
        name, content, loader = self.rng.choice(self.corpus)
        content = mutate(self.rng, content, self.pool)
        path = self.folder / name
        packed = gzip.compress(content, 1) if name.endswith(".gz") else content
        if name.endswith(".gz") and self.rng.random() < 0.2:
            packed = mutate(self.rng, packed)
        path.write_bytes(packed)
        self.tried += 1
        try:
            with self.coverage:
                read(loader, path)
        except Exception as error:
            frame = error.__traceback__
            while frame.tb_next:
                frame = frame.tb_next
            place = (type(error).__name__, frame.tb_frame.f_code.co_name, frame.tb_lineno, loader)
            self.found.setdefault(place, (name, loader, packed, error))
        if self.coverage.fresh:
            self.corpus.append((name, content, loader))
            self.pool.append(content)


def fuzz(folder, seed=0, steps=None, seconds=None):
    """Run so many steps, or for so long; return the Fuzzer."""
    fuzzer = Fuzzer(seed, folder)
    end = None if seconds is None else time.monotonic() + seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # as the command line has it
        while fuzzer.tried != steps and (end is None or time.monotonic() < end):
            fuzzer.step()
    return fuzzer


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that found a defect")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = fuzz(folder, chosen.seed, seconds=chosen.seconds)
    for place, (name, loader, packed, error) in fuzzer.found.items():
        print(*place, repr(error)[:200], f"{name} {packed[:200]!r}", sep=" | ")
        if chosen.keep:
            chosen.keep.mkdir(exist_ok=True)
            digest = hashlib.sha256(packed).hexdigest()[:8]
            (chosen.keep / f"{loader}.{digest}.{name}").write_bytes(packed)
    print(
        f"{fuzzer.tried:,} inputs in {chosen.seconds:g} s, corpus {len(fuzzer.corpus):,}, "
        f"{len(fuzzer.coverage.seen):,} branches, {len(fuzzer.found)} defects"
    )
    return 1 if fuzzer.found else 0


if __name__ == "__main__":
    sys.exit(main())
