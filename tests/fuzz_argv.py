"""Random command lines, out of the real flags and odd values: python tests/fuzz_argv.py 1000 [SEED]

Every one must end with status 0 or 2, without a traceback and before its time is up; memory is
limited to MEMORY bytes, so that a size that no machine has is met too. A run that is merely long
is asked to stop (SIGINT) and has to do so; one whose step is long too is asked again.
"""

import faulthandler
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "support")]
sys.modules["matplotlib"] = None  # pictures take most of a small run's time

import tiny_runs  # noqa: E402

from train import causal, write  # noqa: E402
from train.analyze import __main__ as analyze  # noqa: E402
from train.command_line import build_parser  # noqa: E402
from train.compare import __main__ as compare  # noqa: E402
from train.run.options import parser_for  # noqa: E402

MEMORY = 3 << 30
PATIENCE = 1.5  # seconds until a run is asked to stop
AGAIN = 10  # seconds until it is asked again
HANGS = 30  # seconds until one counts as hanging

NUMBERS = [
    "0", "1", "2", "3", "4", "5", "7", "8", "16", "64", "-1", "-0", "+5", " 6 ", "1_0", "٣", "0x10",
    "1e3", "1.5", "0.5", "0.999", "1e-300", "1e300", "1e-12", "nan", "inf", "-inf", "65536",
    "65537", str(2**31), str(2**63), str(10**30), "9" * 400, "9" * 5000, "", "ten", "1,2", "½",
]  # fmt: skip
TEXTS = [
    "", " ", "text", "label", "size", "rooms", "price", "time", "tide", "tide,flow", "size,size",
    ",", ",,", "a,b,c", "é", "\udce9", "x" * 3000, "--", "-", "-1", "~nosuchuser/a", "/", ".", "..",
    "/dev/null", "/dev/zero", "/proc/self/mem", "summation*3,attention", "attention*0",
    "projection*1000000000", "summation*-1", "*", "tssa*2,attention", "hub:", "hub:/", "hub:..",
    "bpe", "word", "all", "none", "{}", "%s", "%(prog)s", "\n", "a\nb",
]  # fmt: skip


def parsers():
    commands = {task: tiny_runs.command(task) for task in tiny_runs.TASKS}
    found = {task: build_parser(command) for task, command in commands.items()}
    found["generate"], found["analyze"] = write.parser(), analyze.parser()
    found["compare"] = parser_for(compare.CompareConfig, "compare", "")
    return found


def flags_of(parser):
    """(name, choices, takes a value) of every flag."""
    for action in parser._actions:
        for name in action.option_strings:
            if name not in ("-h", "--help"):
                yield name, list(action.choices or ()), action.nargs != 0


def value(rng, choices, paths):
    pools = [NUMBERS, NUMBERS, TEXTS, paths, choices or NUMBERS, choices or NUMBERS]
    return str(rng.choice(rng.choice(pools)))


def draw(rng, task, parser, files, folder):
    """A command line of `task`: a small legal one, or none, and some random flags after it."""
    out = folder / f"run{rng.randrange(10**9)}"
    paths = [*files.values(), *folder.glob("done*"), folder, out, folder / "nowhere.csv"]
    line = []
    if task in tiny_runs.TASKS and rng.random() < 0.9:
        line = ["--data", files[task], *tiny_runs.COMMON, *tiny_runs.SMALL[task], "--epochs", "1"]
        kind = rng.random()
        if kind < 0.1:
            line = ["--resume", "--out", folder / f"done-{task}"]
        elif kind < 0.2:
            line = ["--predict", folder / f"done-{task}"]
        else:
            line += ["--out", out]
    elif task == "generate":
        line = ["--generate", "the", "--out", folder / "done-causal", "--tokens", "4"]
    elif task == "analyze":
        line = [folder / "done-classifier", "--out", out, "--texts", "2"]
    elif task == "compare":
        line = ["--task", rng.choice(["recall", "listops"]), "--steps", "2", "--seeds", "0"]
    flags = list(flags_of(parser))
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        name, choices, takes = rng.choice(flags)
        line.append(name)
        if takes and rng.random() < 0.97:
            line.append(value(rng, choices, paths))
    if rng.random() < 0.05:
        line.insert(rng.randrange(len(line) + 1), value(rng, [], paths))
    return [str(word).replace("\0", "") for word in line]


def call(task, line):
    if task in tiny_runs.TASKS and task != "causal":
        return tiny_runs.main(tiny_runs.command(task), line)
    if task == "analyze":
        return analyze.main(line)
    return {"causal": causal, "generate": causal, "compare": compare}[task].main(line)


def main(count, seed):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rng = random.Random(seed)
    stderr, defects, statuses, longest = sys.stderr, 0, {}, 0.0
    asked = []

    def ask_to_stop(number, frame):
        if asked:
            print(f"--- {AGAIN} s after it was asked to stop: {task} {line}"[:900], file=stderr)
        asked.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGALRM, ask_to_stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        files = {}
        for task in tiny_runs.TASKS:
            (folder / task).mkdir()
            files[task] = tiny_runs.corpus(folder / task, task)
            sys.stdout = io.TextIOWrapper(io.BytesIO())
            assert tiny_runs.train(task, files[task], folder / f"done-{task}") == 0
        every = parsers()
        for number in range(count):
            task = rng.choice(list(every))
            line = draw(rng, task, every[task], files, folder)
            sys.stdin = io.TextIOWrapper(io.BytesIO(files.get(task, files["causal"]).read_bytes()))
            sys.stdout = io.TextIOWrapper(io.BytesIO())
            sys.stderr = io.TextIOWrapper(io.BytesIO())
            asked.clear()
            faulthandler.dump_traceback_later(HANGS, exit=True, file=stderr)
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
            try:
                status, trace = call(task, line), ""
            except SystemExit as stop:  # --help
                status, trace = stop.code, ""
            except BaseException:
                status, trace = None, traceback.format_exc()
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            seconds = time.monotonic() - began
            longest = max(longest, seconds)
            if seconds > PATIENCE + 3:
                print(f"--- {number}: {seconds:.1f} s {task} {line}"[:900], file=stderr)
            sys.stderr.flush()
            said = sys.stderr.buffer.getvalue().decode()
            statuses[status] = statuses.get(status, 0) + 1
            right = status == 0 or (status == 2 and said.splitlines()[-1].startswith("error: "))
            if not (right or (status == 130 and asked)):
                defects += 1
                print(f"--- {number}: {task} {[word[:80] for word in line]}", file=stderr)
                print(f"status {status}: {said[-500:]}\n{trace[-3000:]}", file=stderr)
    sys.stdout, sys.stderr = sys.__stdout__, stderr
    print(f"{count} command lines, {statuses}, longest {longest:.1f} s, {defects} defects")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
