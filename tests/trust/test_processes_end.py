"""No process outlives its command: whatever signal it gets, whoever gets it, whatever is refused.

MINISUM_ENDS=N tries N of the combinations where the default suite tries a few.
"""

import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
import weakref
from pathlib import Path

import pytest
import tiny_runs
from ranks import AT_LAST, SETTINGS, linux, on_host, tagged, wait_for

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from train.run import children, signals

pytestmark = [linux, on_host]

ROOT = Path(__file__).parents[2]
TRIES = int(os.environ.get("MINISUM_ENDS", "10"))
NUMBERS = [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
FOREVER = ["--epochs", str(10**6), "--save-every", "0.2"]


def commands(corpus, run, out):
    """name -> (command, whether it has begun to work)."""
    train = ["--data", str(corpus), *SETTINGS, *FOREVER, "--out", str(out)]
    compare = ["--width", "8", "--heads", "2", "--steps", str(10**7), "--out", str(out)]
    reproduce = ["--sets", "ag_news,20newsgroups", "--mixers", "summation,attention", "--jobs", "2"]
    saved = (out / "last.safetensors").exists
    return {
        "classifier": (["train.classifier", *train], saved),
        "mixers": (["train.classifier", *train, "--mixer", "all"], (out / "summation").exists),
        "launch": (["train.launch", "--ranks", "2", "train.classifier", *train], saved),
        "compare": (["train.compare", *compare], (out / "settings.json").exists),
        "reproduce": (
            ["train.reproduce", *reproduce, "--out", str(out)],
            lambda: len(list(out.glob("runs/*-seed0/config.json"))) >= 2,  # `latest` is no run
        ),
        "generate": (
            ["train.causal", "--generate", "a", "--tokens", str(10**9), "--out", str(run)],
            lambda: (run / "written").stat().st_size,
        ),
    }


ALONE = dict.fromkeys(("classifier", "mixers", "compare", "generate"), ("parent",))
ALL = ("parent", "child", "parent of a stopped child")
TARGETS = ALONE | dict.fromkeys(("launch", "reproduce"), ALL)
CASES = [(name, to, n) for name, targets in TARGETS.items() for to in targets for n in NUMBERS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_runs.corpus(tmp_path_factory.mktemp("corpus"), "classifier")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_runs.trained(tmp_path_factory.mktemp("causal"), "causal")[1]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder for MINISUM_DATA with two sets that train.reproduce knows, large enough to last."""
    folder = tmp_path_factory.mktemp("sets")
    rows = [f"word{i % 97} word{i % 89} other,{i % 4}" for i in range(4_000)]
    for name in ("ag_news", "20newsgroups"):
        (folder / name).mkdir()
        for split in ("train", "test"):
            path = folder / name / f"{split}.csv"
            path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder


@contextlib.contextmanager
def started(command, tag, sets, **options):
    """The command in a session of its own; in the end nothing of it is left, or the test fails."""
    options = {"stdout": subprocess.DEVNULL} | options
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | {"MINISUM_RUN": tag, "MINISUM_DATA": str(sets)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as parent:
        try:
            yield parent
            wait_for(lambda: not tagged(tag), AT_LAST)
        finally:
            for process in tagged(tag):
                os.kill(process, signal.SIGKILL)


def drawn():
    always = [
        ("reproduce", "parent", signal.SIGINT),  # only a test of it sees whom Ctrl-C reaches
        ("launch", ALL[-1], signal.SIGKILL),  # nobody but Linux wakes the child then
    ]
    others = [case for case in CASES if case not in always]
    return always + random.Random(4).sample(others, min(TRIES, len(CASES)) - len(always))


@pytest.mark.parametrize("name, to, number", drawn(), ids=str)
def test_nothing_is_left(corpus, run, sets, tmp_path, name, to, number):
    tag = f"{uuid.uuid4()}"
    command, at_work = commands(corpus, run, tmp_path / "out")[name]
    written = open(run / "written", "wb")  # noqa: SIM115 (closed below)
    with written, started(command, tag, sets, stdout=written) as parent:
        wait_for(lambda: at_work() or parent.poll() is not None, 60)
        time.sleep(random.Random(name + to).uniform(0, 0.5))
        assert parent.poll() is None, parent.stderr.read()
        others = [process for process in tagged(tag) if process != parent.pid]
        if to == "parent of a stopped child":
            os.kill(others[-1], signal.SIGSTOP)
        # A terminal sends Ctrl-C to all of a command's group.
        send = os.killpg if number == signal.SIGINT and to != "child" else os.kill
        send(others[-1] if to == "child" else parent.pid, number)
        if name == "reproduce" and to == "child":  # the others of its runs go on
            wait_for(lambda: others[-1] not in tagged(tag), 2 * AT_LAST)
            parent.terminate()
        errors = parent.stderr.read()
    assert "Traceback" not in errors, errors
    assert parent.returncode != 0
    if name == "reproduce" and to == "parent" and number != signal.SIGKILL:
        logs = [path.read_text() for path in (tmp_path / "out" / "logs").iterdir()]
        assert len(logs) == 2 and all("SIGTERM: the state is saved" in log for log in logs)


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", ["classifier", "compare"])
def test_ctrl_c_while_modules_are_imported_ends_the_command(
    corpus, run, sets, tmp_path, name, delay
):
    tag = f"{uuid.uuid4()}"
    with started(commands(corpus, run, tmp_path / "out")[name][0], tag, sets) as parent:
        time.sleep(delay)
        parent.send_signal(signal.SIGINT)
        errors = parent.stderr.read()
    # Until the package is found Python's own handler is there, and it may show where it was.
    assert parent.returncode != 0
    assert "Traceback" not in errors or "import numpy" not in errors, errors


@pytest.mark.parametrize("ranks, descriptors", [(30, 60), (5, 24)])
def test_too_few_descriptors(corpus, sets, tmp_path, ranks, descriptors):
    tag = f"{uuid.uuid4()}"
    command = ["train.launch", "--ranks", str(ranks), "train.classifier", "--data", str(corpus)]
    limits = (descriptors, descriptors)
    command += [*SETTINGS, "--out", str(tmp_path / "out")]
    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)}
    with started(command, tag, sets, **few) as parent:
        errors = parent.stderr.read()
    assert parent.returncode == 2
    assert f"error: {ranks} processes cannot be started here: [Errno 24]" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("memory", [80, 120, 200])
def test_too_little_memory(corpus, sets, tmp_path, memory):
    """The launcher fits; its ranks, which import NumPy, do not, or hardly: OpenBLAS ends them."""
    limits = (memory << 20, memory << 20)
    tag = f"{uuid.uuid4()}"
    command = ["train.launch", "--ranks", "3", "train.classifier", "--data", str(corpus)]
    command += [*SETTINGS, "--out", str(tmp_path / "out")]
    little = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, limits)}
    with started(command, tag, sets, **little) as parent:
        errors = parent.stderr.read()
    assert parent.returncode not in (0, None)
    assert errors.count("error: rank ") <= 1 and "Traceback" not in errors, errors


def test_a_process_that_is_refused(capsys, monkeypatch):
    """As a limit on processes would: the second rank cannot be forked."""
    from multiprocessing.context import SpawnProcess

    begun, start = [], SpawnProcess.start

    def refuse(self):
        if begun:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        begun.append(self)
        start(self)

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    handlers = {n: signal.getsignal(n) for n in NUMBERS[1:]}
    try:
        assert children.launch(3, "train.classifier", ["--help"]) == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    begun[0].join(10)
    assert begun[0].exitcode == -signal.SIGKILL
    said = capsys.readouterr().err
    assert said.startswith("error: 3 processes cannot be started here: ") and said.count("\n") == 1


def test_a_stopped_rank_is_named(corpus, sets, tmp_path, capsys, monkeypatch):
    tag = f"{uuid.uuid4()}"
    out = tmp_path / "out"
    program = "import sys\nfrom train import launch\nlaunch.children.STILL = 0.5\n"
    program += "sys.exit(launch.main())\n"
    (tmp_path / "impatient.py").write_text(f"if __name__ == '__main__':\n    exec({program!r})\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    train = ["--data", str(corpus), *SETTINGS, *FOREVER, "--out", str(out)]
    command = ["impatient", "--ranks", "2", "train.classifier", *train]
    with started(command, tag, sets) as parent:
        wait_for((out / "last.safetensors").exists)
        rank = tagged(tag)[-1]
        os.kill(rank, signal.SIGSTOP)
        said = parent.stderr.readline()
        assert "note: rank 1 is stopped" in said and f"kill -CONT {rank}" in said
        parent.send_signal(signal.SIGTERM)
    assert parent.returncode == 143


def test_nohup_stays_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interruptible() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received() is None
    finally:
        signal.signal(signal.SIGHUP, before)
    with signals.interruptible() as received:
        os.kill(os.getpid(), signal.SIGHUP)
        assert received() == signal.SIGHUP


def test_a_signal_between_two_parts_is_seen_in_the_next():
    with signals.interruptible():
        with signals.interruptible() as first:
            assert first() is None
        os.kill(os.getpid(), signal.SIGINT)
        with signals.interruptible() as second:
            assert second() == signal.SIGINT
    with signals.interruptible() as fresh:
        assert fresh() is None


def interrupt_itself():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def test_a_swallowed_interrupt_is_raised_later():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals.keyboard_interrupts():
        with contextlib.suppress(KeyboardInterrupt):  # as a library may
            interrupt_itself()
        signals.raise_swallowed()
    assert signal.getsignal(signal.SIGINT) == handler
    with signals.keyboard_interrupts(), contextlib.suppress(KeyboardInterrupt):
        signals.raise_swallowed()  # once
        interrupt_itself()
    with signals.keyboard_interrupts():
        signals.raise_swallowed()  # of this command, not of one before


def test_an_interrupt_in_a_callback_is_not_shown_and_not_lost(capfd, monkeypatch):
    """Where Python prints what is raised, and forgets it. Other errors are shown as ever."""
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with pytest.raises(KeyboardInterrupt), signals.keyboard_interrupts():
        thing, other = set(), set()
        references = [
            weakref.ref(thing, lambda reference: 1 / 0),
            weakref.ref(other, lambda reference: interrupt_itself()),
        ]
        del thing, other
        assert [reference() for reference in references] == [None, None]
        signals.raise_swallowed()
    assert [about.exc_type for about in shown] == [ZeroDivisionError]
    assert sys.unraisablehook == shown.append and capfd.readouterr() == ("", "")


class Rank:
    """What children.wait reads of a process; one that has no end is ended by kill()."""

    def __init__(self, exitcode, end=None):
        self.sentinel, self.writer = os.pipe()
        self.exitcode, self.pid, self.killed = exitcode, 0, False
        if end is not None:
            threading.Timer(end, os.close, [self.writer]).start()

    def join(self):
        os.close(self.sentinel)

    def kill(self):
        self.killed = True
        os.close(self.writer)


@pytest.mark.parametrize(
    "ends, status, killed, words",
    [
        ([(3, 0), (0, 0.3)], 3, [False, False], ""),
        ([(-9, 0), (1, None)], 137, [False, True], "error: rank 0 was ended by SIGKILL, and"),
        ([(0, 0), (0, 0.1), (-15, 0.2)], 143, [False] * 3, "error: rank 2 was ended by SIGTERM"),
    ],
)
def test_the_first_rank_that_fails_decides(monkeypatch, capsys, ends, status, killed, words):
    """The others may end by themselves for a while, and are killed after it."""
    monkeypatch.setattr(children, "GRACE", 0.3 if True in killed else 60)
    ranks = [Rank(*end) for end in ends]
    assert children.wait(ranks) == status
    assert [rank.killed for rank in ranks] == killed
    said = capsys.readouterr().err
    assert said.startswith(words) and said.count("\n") == bool(words)


def test_a_rank_that_cannot_be_started_says_so_once(sets, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    with started(["train.launch", "--ranks", "2", "broken"], f"{uuid.uuid4()}", sets) as parent:
        errors = parent.stderr.read()
    assert parent.returncode == 2 and errors.count("\n") == 1
    assert " of 2 cannot be started: No module named 'no_such_module'" in errors


def test_a_child_has_no_standard_input(sets, tmp_path, monkeypatch):
    """It waits for the end of what its parent gives it, and its module reads nothing of that."""
    (tmp_path / "reader.py").write_text("import sys\nprint([sys.stdin.read()])\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    command = ["train.run.children", "reader"]
    with started(command, f"{uuid.uuid4()}", sets, **pipes) as parent:
        wait_for(lambda: parent.poll() is not None)
        assert parent.stdout.read() == "['']\n"


def test_all_cases_are_there():
    assert len(CASES) == 4 * 4 + 2 * 3 * 4 == len(set(itertools.chain(CASES)))
