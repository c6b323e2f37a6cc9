r"""Break every backward pass on purpose, one small mistake at a time: do the tests notice?

    python -m tests.mutants                          # minisum/ops, minisum/fast and minisum/mixers
    python -m tests.mutants minisum/ops/norms.py --sample 20 --seed 1
    python -m tests.mutants --forward                # mistakes in the forward pass as well
    python -m tests.mutants minisum/models --tests models
    python -m tests.mutants train/launch.py --forward --copy --tests trust/test_processes_end.py

A mutant is the package with one mistake (tests/mutants/mutations.py) in a function `back` or in
something that `back` calls. The tests are collected once; each mutant is a forked process in which
the code of one function is exchanged, and the tests that reach the changed statement run until one
fails, those that compare gradients first. A test that does not end counts as a failure. Code that
other processes run is changed in a copy of all files, where pytest is started anew (--copy).

Results are kept in .pytest_cache/mutants.json: an interrupted run goes on where it stopped, and
what survived is tried again once a test has changed. Exit status 1 if a mutant survives that is not
listed in tests/mutants/equivalent.py with the reason why it changes nothing.
"""

import argparse
import ast
import gc
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "mutants"}

import pytest  # noqa: E402

from tests.mutants.equivalent import changes_nothing  # noqa: E402
from tests.mutants.sources import ROOT, Source, digest, functions, mutants  # noqa: E402

RESULTS = ROOT / ".pytest_cache" / "mutants.json"
TESTS = (
    "ops/test_ops.py",
    "ops/test_invariants.py",
    "ops/test_masks.py",
    "ops/test_attention_forms.py",
    "ops/test_losses.py",
    "ops/test_extreme_values.py",
    "ops/test_add_rows.py",
    "ops/test_feature_maps.py",
    "fast/test_forms.py",
    "mixers/test_mixers.py",
    "mixers/test_mixer_texts.py",
    "mixers/test_mixer_identities.py",
    "models/test_long_document.py",
    "ops/test_numerics.py::test_no_operation_answers_in_another_type",
)
# Seconds that a test may take in a mutant, beside ten times what it takes otherwise.
PATIENCE = 10
MOST_IN_A_COPY = 300  # and all of them where the files are copied


def mark(source, chosen, reached):
    """Let every statement of the `chosen` functions add (file, line) to `reached` as it runs."""
    tree, owners = source.tree, {f for f in chosen if chosen[f] is source}
    source.tree = marked = ast.parse(source.text)
    twins = dict(zip(ast.walk(tree), ast.walk(marked), strict=True))
    for node in list(ast.walk(marked)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and not isinstance(node, (ast.Module, ast.ClassDef)):
                lines = [ast.parse(f"_reached({s.lineno})").body[0] for s in block]
                setattr(node, field, [s for pair in zip(lines, block, strict=True) for s in pair])
    source.module._reached = lambda line, file=source.file: reached.add((file, line))
    source.above |= {twins[a]: twins[b] for a, b in list(source.above.items())}
    for function in owners:
        source.exchange(twins[function])


class Runner:
    """A pytest plugin: runs the hunt in the place of the tests that were collected."""

    def __init__(self, hunt, examples):
        self.hunt, self.examples = hunt, examples
        self.failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self):
        """The profile that conftest.py will load: no search for the smallest failure."""
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutants",
            deadline=None,
            max_examples=self.examples,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )

    def pytest_runtestloop(self, session):
        self.items = session.items
        gc.freeze()
        self.hunt(self)
        return True

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed

    def passes(self, item):
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.failed


def reach(runner, chosen, places):
    """[(place, seconds, lines reached or None if it fails)] of the tests at `places`."""
    reached, found = set(), []
    for source in set(chosen.values()):
        mark(source, chosen, reached)
    for place in places:
        reached.clear()
        started = time.perf_counter()
        passes = runner.passes(runner.items[place])
        found.append([place, time.perf_counter() - started, sorted(reached) if passes else None])
    return found


def in_a_child(work):
    """Start work() in a forked process; returns a file to read its JSON result from."""
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        return os.fdopen(read)
    status, stderr = 1, sys.stderr
    try:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        result = json.dumps(work())
        with os.fdopen(write, "w") as file:
            file.write(result)
        status = 0
    except Exception:
        traceback.print_exc(file=stderr)
    finally:
        os._exit(status)


def fate(runner, mutant, tests):
    """What notices the mutant, or "". tests: (.., seconds, index of the item), in order."""
    mutant.mistake.make()
    try:
        mutant.source.exchange(mutant.function)
    except (SyntaxError, ValueError):
        return "(does not compile)"
    for _, seconds, index in tests:
        signal.alarm(int(PATIENCE + 10 * seconds))
        if not runner.passes(runner.items[index]):
            return runner.items[index].nodeid
    return ""


class Book:
    """What noticed each mutant ("" for nothing), kept in a file between runs.

    A line holds as long as the function is the same, and for a survivor the tests too.
    """

    def __init__(self, path, tests, names):
        self.path = path
        self.tests = digest(names + "".join(map(text_of, tests)))
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def __contains__(self, mutant):
        code, noticed, tests = self.known.get(mutant.key, ("", "", ""))
        return code == mutant.digest and bool(noticed or tests == self.tests)

    def __getitem__(self, mutant):
        return self.known[mutant.key][1]

    def __setitem__(self, mutant, noticed):
        self.known[mutant.key] = mutant.digest, noticed, self.tests

    def save(self):
        self.path.parent.mkdir(exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.known, indent=0, ensure_ascii=False))
        fresh.replace(self.path)


def text_of(test):
    """The source of a test's file, or of all files in a folder of tests."""
    path = Path(test.partition("::")[0])
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def try_all(runner, waiting, chosen, jobs, book):
    """Find out what notices each of the `waiting` mutants, `jobs` at a time."""
    started = time.perf_counter()
    everywhere = range(len(runner.items))
    shares = [everywhere[first::jobs] for first in range(jobs)]
    files = [in_a_child(partial(reach, runner, chosen, share)) for share in shares]
    found = [json.loads(file.read() or "[]") for file in files]
    for file in files:
        file.close()
        os.wait()
    tests = sorted(test for part in found for test in part)
    if len(tests) < len(everywhere):
        raise SystemExit("the tests did not come to an end, without any mistake")
    places = {}
    for index, seconds, lines in tests:
        name = runner.items[index].nodeid
        if lines is None:
            print(f"left out: {name} fails without any mistake")
        for file, line in lines or ():
            places.setdefault((file, line), []).append(("gradient" not in name, seconds, index))
    print(f"{len(tests)} tests in {time.perf_counter() - started:.0f} s", flush=True)
    fitting = {m: sorted(places.get((m.source.file, m.line), [])) for m in waiting}

    def trial(mutant):
        return fate(runner, mutant, fitting[mutant])

    judge_all(waiting, trial, jobs, book, lambda mutant: f"{len(fitting[mutant])} tests")


def judge_all(waiting, trial, jobs, book, told):
    """Write what trial(mutant) says of each into the book, `jobs` at a time; print survivors."""
    started = time.perf_counter()
    waiting, running = list(waiting), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[in_a_child(partial(trial, mutant))] = mutant
        for file in select.select(list(running), [], [])[0]:
            with file:
                answer = file.read()
            os.wait()
            mutant = running.pop(file)
            book[mutant] = json.loads(answer) if answer else "(did not end)"
            if not book[mutant]:
                print(f"line {mutant.line}, {told(mutant)}: {mutant.key}", flush=True)
            if len(waiting) % 50 == 0:
                book.save()
                seconds = time.perf_counter() - started
                print(f"{seconds:5.0f} s: {len(waiting)} to go", flush=True)


def fate_in_a_copy(mutant, tests, names):
    """As `fate`, where the mistake is in a copy of the files: for code that other processes run.

    mutant: None for the files without any mistake.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=left_out)
        if mutant is not None:
            mutant.mistake.make()
            mutated = ast.unparse(ast.fix_missing_locations(mutant.source.tree))
            (copy / mutant.source.file).write_text(mutated, encoding="utf-8")
        tests = [str(copy / Path(test).relative_to(ROOT)) for test in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        try:
            run = subprocess.run(
                [*command, *tests, "-k", names], cwd=copy, stdin=subprocess.DEVNULL,
                env=os.environ | {"HYPOTHESIS_PROFILE": "default"},  # Runner's is not there
                capture_output=True, text=True, timeout=MOST_IN_A_COPY,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "(did not end)"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "" if run.returncode == 0 else failed[0] if failed else f"(status {run.returncode})"


def left_out(folder, names):
    """What no copy needs; runs are in the root, and other rooms are called so too."""
    patterns = (".*", "__pycache__", *(["runs"] if Path(folder) == ROOT else []))
    return shutil.ignore_patterns(*patterns)(folder, names)


def files_in(folder):
    """Its Python files: a package's own __init__.py gathers names, its __main__.py is a command."""
    return [f for f in sorted(folder.glob("*.py")) if f.name[0] != "_" or f.name == "__main__.py"]


def report(everyone, book, full):
    """Print the table; returns how many survived."""
    survived = [mutant for mutant in everyone if not book[mutant]]
    for mutant in everyone if full else survived:
        place, change = f"{mutant.source.file}:{mutant.line}", mutant.key.partition(": ")[2]
        print(f"{place}  {change}\n    {book[mutant] or 'SURVIVED'}")
    print(f"{len(everyone) - len(survived)} of {len(everyone)} mutants noticed")
    return len(survived)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    rooms = ["minisum/ops", "minisum/fast", "minisum/mixers"]
    parser.add_argument("paths", nargs="*", default=rooms)
    parser.add_argument("--forward", action="store_true", help="mistakes in every function")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--examples", type=int, default=25, help="per property (default: 25)")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="test files or test names")
    parser.add_argument("-k", default="", help="only tests whose names match, as in pytest")
    parser.add_argument("--copy", action="store_true", help="for code of other processes, slowly")
    parser.add_argument("--full", action="store_true", help="print the noticed ones too")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()

    paths = [ROOT / path for path in options.paths]
    files = [f for p in paths for f in ([p] if p.suffix else files_in(p))]
    sources = [Source(file) for file in files]
    everyone = list(mutants(sources, options.forward))
    hopeful = [mutant for mutant in everyone if not changes_nothing(mutant.key)]
    print(f"{len(everyone)} mutants, {len(everyone) - len(hopeful)} of which change nothing")
    if options.sample:
        hopeful = random.Random(options.seed).sample(hopeful, min(options.sample, len(hopeful)))
    tests = [str(ROOT / "tests" / name) for name in options.tests]
    book = Book(options.results, tests, options.k)
    waiting = [mutant for mutant in hopeful if mutant not in book]
    print(f"{len(waiting)} of {len(hopeful)} to try", flush=True)
    if waiting and options.copy:
        if failed := fate_in_a_copy(None, tests, options.k):
            sys.exit(f"the tests fail without any mistake: {failed}")
        trial = partial(fate_in_a_copy, tests=tests, names=options.k)
        judge_all(waiting, trial, options.jobs, book, lambda mutant: "in a copy")
        book.save()
    elif waiting:
        chosen = functions(sources, options.forward)
        work = partial(try_all, waiting=waiting, chosen=chosen, jobs=options.jobs, book=book)
        # The package imports Hypothesis before pytest can rewrite it, which would be an error.
        ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        arguments = ["-s", "-p", "no:terminal", "-o", "addopts=", "-k", options.k, *ignored]
        try:
            status = pytest.main([*arguments, *tests], plugins=[Runner(work, options.examples)])
            if status:
                sys.exit(f"pytest could not collect the tests (exit status {status:d})")
        finally:
            book.save()
    sys.exit(report(hopeful, book, options.full) > 0)


if __name__ == "__main__":
    main()
