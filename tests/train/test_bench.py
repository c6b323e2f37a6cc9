"""The benchmark counts, compares and reports rightly. Nothing here looks at a clock."""

import json
import sys

import numpy as np
import pytest
from conftest import XP

from train.bench import __main__ as bench
from train.bench import compare as bench_compare
from train.bench import lines as bench_lines
from train.bench import measure as bench_measure
from train.bench import sides as bench_sides
from train.bench import training as bench_training
from train.bench.compare import Bench, Line
from train.bench.sides import Ours, Workload, products_of
from train.classifier import Classification, ClassifierConfig

if XP is not np:
    pytest.skip("starts both backends itself", allow_module_level=True)

SMALL = {"batch": 4, "tokens": 16, "width": 8, "vocab": 50, "classes": 3, "heads": 2}
WORKLOADS = {
    "summation": Workload("summation", **SMALL),
    "attention": Workload("attention", **SMALL),
    "wide heads": Workload("attention", **SMALL, head_width=8),
    "causal": Workload("causal", **SMALL, pattern="summation*2,attention"),
}


class Counted:
    """The shape of an array, and nothing else of it: products add up their operations."""

    flops = 0

    def __init__(self, array):
        self.shape = array.shape

    def swapaxes(self, a, b):
        return Counted(np.empty([*self.shape[:-2], self.shape[-1], self.shape[-2]]))

    def __matmul__(self, other):
        *lead, m, k = self.shape
        assert other.shape[:-1] == (*lead, k)
        shape = (*lead, m, other.shape[-1])
        Counted.flops += 2 * k * int(np.prod(shape))
        return Counted(np.empty(shape))


@pytest.fixture
def small(monkeypatch):
    """The benchmark's arguments and table, cut down to a workload that takes milliseconds."""

    def line(bench):
        found = bench.compare(WORKLOADS["summation"], with_inference=True)
        return bench_lines.curve_point(bench, "a small step", found)

    monkeypatch.setattr(bench, "TABLE", {"step": line})
    monkeypatch.setattr(bench_measure, "PAUSE", 0)
    monkeypatch.setattr(bench_compare, "bandwidth", lambda xp, workers: 1e9)
    return ["--quick", "--threads", "1", "--seconds", "0", "--modes", "eager"]


# What is counted


@pytest.mark.parametrize("largest", (2**24, 2**6))
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_products_are_all_there(monkeypatch, workload, largest):
    """However large ones are split, the products done alone have the step's operations."""
    monkeypatch.setattr(bench_sides, "LARGEST", largest)
    monkeypatch.setattr(Counted, "flops", 0)
    products_of(workload, rows=2, blocks=2, put=Counted)()
    assert Counted.flops == workload.flops()


def test_operations_of_summation_by_hand():
    workload = Workload("summation", 64, 256, width=256, classes=20)
    assert workload.flops() == 3 * 2 * 64 * (256 * 256 * 256 + 256 * 20)


def test_words_are_drawn_as_in_text():
    workload = Workload("summation", 64, 256)
    batch, again = workload.data, Workload("summation", 64, 256).data
    assert batch["mask"].all() and batch["ids"].shape == (64, 256)
    np.testing.assert_array_equal(batch["ids"], again["ids"])
    counts = np.bincount(batch["ids"].reshape(-1), minlength=workload.vocab)
    assert counts[0] > 1.5 * counts[1] > 2 * counts[5] > 0
    assert (counts == 0).sum() > workload.vocab / 3


# How it is measured


def test_repetitions_take_turns(monkeypatch):
    calls = []
    monkeypatch.setattr(bench_measure, "HOST_SECONDS", 0)
    monkeypatch.setattr(bench_measure, "synchronize", lambda xp: calls.append("|"))
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = bench_measure.interleaved(runs, np, budget=0)
    text = "".join(calls)
    warm = "|a|" * bench_measure.WARM_UP + "|b|" * bench_measure.WARM_UP
    assert text == warm + "|a||b|" * bench_measure.LEAST_ROUNDS
    assert {len(t) for t in times.values()} == {bench_measure.LEAST_ROUNDS}


def test_a_repetition_is_as_many_steps_as_it_takes(monkeypatch):
    """Steps of 10 ms, by a clock that only they move: 0.2 s are twenty, timed from end to end."""
    now, steps = [0.0], []

    def step():
        now[0] += 0.01
        steps.append(now[0])

    monkeypatch.setattr(bench_measure.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bench_measure.time, "sleep", lambda seconds: None)
    times = bench_measure.interleaved({"a": step}, np, budget=0)["a"]
    assert times == pytest.approx([0.01] * bench_measure.LEAST_ROUNDS)
    assert len(steps) in range(
        bench_measure.WARM_UP + 19 * len(times), bench_measure.WARM_UP + 20 * len(times) + 1
    )


def test_peak_memory_counts_vectors_and_activations():
    workload = WORKLOADS["summation"]
    sides = []

    def build():
        sides.append(Ours(workload, np, 1))
        return sides[0]

    peak = bench_measure.peak_memory(lambda: bench_sides.two_steps(build), np)
    vectors = 4 * sides[0].params.vector.nbytes
    activations = 2 * 4 * workload.tokens * workload.width
    assert vectors + activations < peak < vectors + 10**6
    assert sides[0].adam.steps == 2


def test_a_step_learns_on_both_paths(monkeypatch):
    """Cut into stretches or not, from the same first values: the same losses."""
    losses = []
    for long in (2, 10**6):
        monkeypatch.setattr(bench_sides, "LONG", long)
        side = Ours(WORKLOADS["summation"], np, 2)
        losses.append([float(side.step()) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][0] > losses[0][1] > losses[0][2]


# What is said


@pytest.mark.parametrize(
    "ratio, target, at_most, met",
    [(2.1, 2.0, False, True), (1.9, 2.0, False, False), (0.9, 1.0, True, True),
     (1.1, 1.0, True, False), (None, 2.0, False, None), (2.0, None, False, None)],
)  # fmt: skip
def test_a_target_is_met_or_not(ratio, target, at_most, met):
    line = Line("a", "b", "c", "d", ratio, target, at_most)
    assert line.met is met
    assert line.cells()[-1] == {True: "yes", False: "NO", None: ""}[met]


def test_without_pytorch_our_numbers_remain(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert bench.main([*small, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "PyTorch is not installed" in said and "GFLOP/s" in said
    record = json.loads((tmp_path / "bench.json").read_text())
    assert [line["ratio"] for line in record["lines"]] == [None]
    assert record["lines"][0]["details"]["seconds"]["ours"]["median"] > 0


def test_with_pytorch_ratios_and_a_plot(small, tmp_path, capsys):
    pytest.importorskip("torch")
    assert bench.main([*small, "--out", str(tmp_path)]) == 0
    assert "outputs agree" in capsys.readouterr().out
    time, memory = json.loads((tmp_path / "bench.json").read_text())["lines"]
    seconds = time["details"]["seconds"]
    assert set(seconds) == {
        f"{side}{what}" for side in ("ours", "eager") for what in ("", " inference", " products")
    }
    assert time["ratio"] == pytest.approx(seconds["eager"]["median"] / seconds["ours"]["median"])
    peaks = time["details"]["peak_bytes"]
    assert memory["ratio"] == pytest.approx(peaks["ours"] / peaks["eager"])
    pytest.importorskip("matplotlib")
    assert (tmp_path / "bench.png").stat().st_size > 1000


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_both_sides_are_the_same_model(workload):
    """The same outputs and losses, before and after a step of Adam on every parameter."""
    pytest.importorskip("torch")
    b = Bench.__new__(Bench)
    b.xp, b.threads, b.device, b.modes = np, 1, "cpu", ["eager"]
    b.precision = "float32"
    b.torch, _ = bench_compare.load_torch(1, "float32")
    sides = {name: make() for name, make in b.makers(workload, ["eager"]).items()}
    assert bench_compare.disagreement(sides) < 1e-4
    names = {name.replace(".", "_"): name for name in workload.initial}
    assert set(names) == {name for name, _ in sides["eager"].model.named_parameters()}


def test_a_model_that_differs_is_no_comparison():
    found = {
        "seconds": {name: {"median": 1.0, "min": 1.0} for name in ("ours", "eager")}
        | {f"{side} products": {"median": 0.5, "min": 0.5} for side in ("ours", "eager")},
        "products_flop": 1e9,
        "limit_seconds": 0.6,
        "tokens_per_second": {"ours": 1.0},
        "outputs_differ": 0.5,
    }
    b = Bench.__new__(Bench)
    b.modes, b.why_not, b.precision = ["eager"], None, "float32"
    (line,) = b.lines("step", "what", found, 0.5)
    assert line.ratio is None and line.met is None and "DIFFER" in line.notes[-1]


@pytest.mark.parametrize(
    "arguments, said",
    [(["--only", "nonsense"], "choose one of step, training"), (["--modes", "slow"], "eager"),
     (["--threads", "0"], "at least 1"), (["--precision", "bf16"], "--backend cupy"),
     (["--backend"], "--help")],
)  # fmt: skip
def test_wrong_flags_are_one_sentence(arguments, said, capsys):
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


def test_training_is_the_same_on_both_sides(corpus, monkeypatch):
    """Without dropout: the same parameters after an epoch and a half."""
    pytest.importorskip("torch")
    from train.bench.pytorch_training import TheirTraining
    from train.bench.training import OurTraining

    options = {"width": 8, "max_len": 8, "batch_size": 16, "threads": 1, "lr": 0.01, "epochs": 1}
    config = ClassifierConfig(data=str(corpus), dropout=0.0, token_dropout=0.0, **options)
    task = Classification.load(config, None, resume=False)
    ours = OurTraining(task)
    steps = ours.steps_an_epoch * 3 // 2
    monkeypatch.setattr(bench_training, "STEPS", steps)
    theirs = TheirTraining(task, bench_training.initial(task), "cpu", "eager", steps)
    batch = task.train_batch(task.order(1)[:16])
    assert bench_training.difference(ours, theirs, batch) < 1e-5
    ours.run(), theirs.run()
    assert bench_training.difference(ours, theirs, batch) < 1e-3
    for name, ours_now in ours.trainer.params.flat.items():
        theirs_now = getattr(theirs.model, name.replace(".", "_")).detach().numpy()
        np.testing.assert_allclose(ours_now, theirs_now, atol=1e-4)


def test_the_line_of_training(corpus, small, monkeypatch):
    monkeypatch.setattr(bench_training, "STEPS", 2)
    options = {"width": 8, "max_len": 8, "batch_size": 16, "threads": 1, "epochs": 1}
    task = Classification.load(ClassifierConfig(data=str(corpus), **options), None, resume=False)
    b = Bench("numpy", 1, "float32", ["eager"], 0)
    line = bench_training.corpus_line(b, task, 2.0)
    seconds, steps = line.details["seconds"], line.details["steps"]
    assert steps == -(-task.train_size // 16) and "real tokens/s" in line.notes[0]
    assert line.details["tokens"] == sum(map(len, task.texts["train"]))
    if b.torch:
        assert line.ratio == pytest.approx(seconds["eager"]["median"] / seconds["ours"]["median"])


def test_a_corpus_that_is_not_here_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(bench_training, "CORPORA", {"no such corpus": 2.0})
    b = Bench.__new__(Bench)
    b.threads, b.xp, b.precision = 1, np, "float32"
    assert list(bench_training.training(b)) == []
    assert "no training on no such corpus" in capsys.readouterr().out
