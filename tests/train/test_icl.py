"""python -m train.icl: sequences, baselines, training of many models at once, cells and files."""

import json
import os
import sys

import numpy as np
import pytest
from fake_cupy import module as fake_cupy
from interrupting import interrupted

from data.generated.regression import Regression
from minisum import optim
from minisum.models.closed_form import ridge
from minisum.models.in_context import FORMS, InContextRegressor
from train.icl import __main__ as icl
from train.icl import baselines, figures, report, sequences, training
from train.run.report import Report

TINY = ["--seeds", "2", "--steps", "3", "--batch-size", "4", "--test-size", "50"]


def call(*arguments):
    return icl.main([str(argument) for argument in arguments])


def config(**settings):
    return icl.resolve({"test_size": 200, "steps": 4, "batch_size": 8, "seeds": 2} | settings)


def train(layers, forms, laws, **settings):
    return training.train(config(**settings), layers, forms, laws, Report(silent=True))


# Sequences


def test_problems_are_the_regressions_of_the_data():
    """Gram matrices of the examples, and weights that answer as ridge with known σ does."""
    drawn = sequences.draw([[3], [4]], 5)
    names = ["2", "1+3"]
    laws = [sequences.LAWS[name] for name in names]
    sigmas = np.stack([law.sigmas(drawn[3]) for law in laws])
    units = sequences.scales(laws)
    np.testing.assert_allclose(units**2, [10 + 4 / 3, 10 + 5])
    G, best = sequences.problems(drawn, sigmas, units)
    assert G.shape == (4, 5, 11, 11) and best.shape == (4, 5, 10)
    for k, (law, stream) in enumerate((law, stream) for law in laws for stream in (3, 4)):
        rng = np.random.default_rng([stream])
        x, w, noise, u = law.standard(rng, 5)
        y = np.einsum("bnd,bd->bn", x, w)
        sigma = law.sigmas(u)
        y[:, :-1] += sigma[:, None] * noise
        tokens = np.concatenate([x, y[..., None]], axis=2)
        examples = tokens[:, :-1] / np.append(np.ones(10), units[k // 2])
        np.testing.assert_allclose(G[k], examples.swapaxes(1, 2) @ examples / 20, rtol=1e-12)
        answers = (best[k] * x[:, -1]).sum(axis=1) * units[k // 2]
        np.testing.assert_allclose(answers, ridge(tokens, sigma), rtol=1e-9)


def test_the_draws_of_a_stream_do_not_depend_on_the_others():
    together, alone = sequences.draw([[0, 1], [7, 1]], 6), sequences.draw([[7, 1]], 6)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one[1], other[0])


def test_loss_minus_the_oracles_is_the_distance_to_its_weights():
    """½ E(ŷ - y)² - ½ E(y_σ - y)² = ½ E|ŵ - ŵ_σ|² within five standard errors."""
    drawn = sequences.draw([[1]], 20_000)
    sigmas = Regression(noise=(1.0, 3.0)).sigmas(drawn[3])[None]
    G, best = sequences.problems(drawn, sigmas, np.ones(1))
    w, guess = drawn[1], 0.6 * G[..., :-1, -1]
    asked = np.random.default_rng(2).normal(size=w.shape)
    errors = [((weights - w) * asked).sum(axis=-1) for weights in (guess, best)]
    plain = (errors[0] ** 2 - errors[1] ** 2) / 2
    short = ((guess - best) ** 2).sum(axis=-1) / 2
    apart = (plain - short)[0]
    assert abs(apart.mean()) < 5 * apart.std() / len(apart) ** 0.5
    assert short.std() < plain.std() / 2


# Baselines


def test_baselines_are_ridge_solutions():
    drawn = sequences.draw([[5]], 6)
    law = sequences.LAWS["3"]
    x, w, noise, u = (part[0] for part in drawn)
    found = baselines.spectrum(baselines.decomposed(drawn), law.sigmas(u))
    for row in range(6):
        X, sigma = x[row], law.sigmas(u[row])
        y = X @ w[row] + sigma * noise[row]

        def solution(v, X=X, y=y):
            return np.linalg.solve(X.T @ X + v * np.eye(10), X.T @ y)

        residual = ((y - X @ solution(0)) ** 2).sum() / 10
        np.testing.assert_allclose(found.estimate[row], residual, rtol=1e-9)
        error = ((solution(0.7) - solution(sigma**2)) ** 2).sum() / 2
        np.testing.assert_allclose(found.errors(0.7)[row], error, rtol=1e-7)
        trace = np.trace(np.linalg.inv(X.T @ X + sigma**2 * np.eye(10))) * sigma**2 / 2
        np.testing.assert_allclose(found.oracle()[row], trace, rtol=1e-9)
        np.testing.assert_allclose(found.tuned(2, 3.0)[row], 2 * min(residual, 3.0), rtol=1e-9)


def test_baselines_are_the_published_ones():
    """With 10,000 sequences, within 4 % or .003 and the rounding of the print."""
    for name, found in baselines.measure(["0", "5", "1+3"], 10_000).items():
        for baseline in report.BASELINES:
            there = report.published(baseline, name)
            apart = abs(found[baseline]["loss"] - there)
            allowed = 0.04 * there + 0.0005 + 3 * found[baseline]["error"]
            assert apart < allowed, (name, baseline, found[baseline])
            assert len(found["profiles"][baseline]) == len(found["levels"])
        there = report.published("head", name, 1)
        assert abs(found["one layer"]["loss"] - there) < 0.02 * there + 3 * found["oracle"]["error"]


def test_the_best_single_layer():
    """Its weights are η α to rounding, and its loss is where the quadratic in η is least."""
    law = sequences.LAWS["1+3+5"]
    found = baselines.one_layer(law)
    n, d, s2 = 20, 10, sequences.noise_variance(law)
    assert s2 == 35 / 3
    eta = found["eta"]
    np.testing.assert_allclose(eta * (n + d + 1 + s2), 1, rtol=1e-15)

    def loss(eta):
        return (d - 2 * eta * n * d + eta**2 * n * d * (n + d + 1 + s2)) / 2

    np.testing.assert_allclose(found["loss"], loss(eta), rtol=1e-14)
    assert loss(eta) < min(loss(0.99 * eta), loss(1.01 * eta))
    drawn = sequences.draw([[9]], 40_000)
    G, _ = sequences.problems(drawn, law.sigmas(drawn[3])[None], np.ones(1))
    model = InContextRegressor("free", 1)
    params = {"omega": np.array([[[[0.4, -0.2], [found["omega_yx"], 3.0]]]])}
    w = model.weights(params, G)
    np.testing.assert_allclose(w, eta * n * G[..., :-1, -1], rtol=1e-13)
    errors = ((w - drawn[1]) ** 2).sum(axis=-1)[0] / 2
    assert abs(errors.mean() - found["loss"]) < 4 * errors.std() / len(errors) ** 0.5


# Training


@pytest.mark.parametrize("form", FORMS)
def test_one_layer_learns_the_closed_form(form):
    """All forms are one step of gradient descent then: within 2 % of the least loss."""
    result = train(1, [form], ["5"], steps=300, batch_size=64, test_size=2000)[form, "5"]
    law = sequences.LAWS["5"]
    draws = baselines.decomposed(sequences.draw([[1]], 20_000))
    oracle = baselines.spectrum(draws, law.sigmas(draws[3])).oracle().mean()
    best = baselines.one_layer(law)["loss"] - oracle
    assert max(result["losses"]) < 1.02 * best + 3 * max(result["standard_errors"])
    assert result["skipped_steps"] == [0, 0]


def test_a_result_does_not_depend_on_what_is_trained_beside_it():
    together = train(2, ["free", "gd"], ["3", "1+3"])
    for form, law in together:
        alone = train(2, [form], [law])[form, law]
        for name in ("losses", "profile", "largest", "standard_errors"):
            np.testing.assert_allclose(together[form, law][name], alone[name], rtol=1e-9)
    fewer = train(2, ["gd"], ["3"], seeds=1)["gd", "3"]
    np.testing.assert_allclose(fewer["losses"], together["gd", "3"]["losses"][:1], rtol=1e-9)


def test_the_best_seed_is_kept():
    """Its coefficients give the loss that is reported for it."""
    result = train(2, ["head"], ["1+3"], seeds=3)["head", "1+3"]
    learner = training.Learner("head", 2, 1, config(seeds=1), np)
    for name, values in result["parameters"].items():
        learner.params[name][...] = values
    law = sequences.LAWS["1+3"]
    units = sequences.scales([law])
    again = training.test([learner], 1, units, lambda u: law.sigmas(u)[None], 200)
    np.testing.assert_allclose(again.mean(), min(result["losses"]), rtol=1e-9)
    np.testing.assert_allclose(
        result["standard_errors"][int(np.argmin(result["losses"]))], again.std() / 200**0.5
    )


def test_each_gradient_is_clipped_alone():
    """One that is too long is shortened, one that overflowed undone, the others left alone."""
    learner = training.Learner("head", 2, 1, config(seeds=3, clip_norm=2.0), np)
    learner.clip()
    before = learner.params.vector.copy()
    for flat, value in ((learner.params.flat, 5.0), (learner.adam.m.flat, 7.0)):
        for view in flat.values():
            view[...] = value
    for view in learner.grads.flat.values():
        view[0], view[1], view[2] = 0.1, 10.0, 1.0
    learner.grads["q"][2, 1, 0] = np.inf
    learner.clip()
    p, q = learner.grads["p"], learner.grads["q"]
    assert (p[0] == 0.1).all() and (q[0] == 0.1).all()
    np.testing.assert_allclose((p[1] ** 2).sum() + (q[1] ** 2).sum(), 4)
    assert not p[2].any() and not q[2].any()
    assert learner.skipped.tolist() == [0, 0, 1]
    assert (learner.params["p"][:2] == 5).all() and (learner.adam.m["p"][:2] == 7).all()
    assert not learner.adam.m["p"][2].any() and not learner.adam.m["q"][2].any()
    old = learner.params.zeros_like()
    old.vector[...] = before
    np.testing.assert_array_equal(learner.params["q"][2], old["q"][2])
    learner.grads["p"][1] = np.nan
    learner.params["p"][1] = 9
    learner.clip()
    assert (learner.params["p"][1] == 5).all() and learner.skipped.tolist() == [0, 1, 1]
    learner.grads.vector[...] = 0
    learner.clip()  # without a division by zero
    assert not learner.grads.vector.any() and learner.skipped.tolist() == [0, 1, 1]


def test_training_keeps_host_arrays_off_the_device(monkeypatch):
    """And computes the same there."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    monkeypatch.setattr(training.backend, "get", {"numpy": np, "cupy": fake_cupy}.get)
    monkeypatch.setattr(training.backend, "synchronize", lambda xp: None)
    monkeypatch.setattr(training.machine, "device_name", lambda xp: "")
    monkeypatch.setattr(training.machine, "versions", lambda xp: {})
    monkeypatch.setattr(optim, "adam_update", optim.adam_update.plain)
    monkeypatch.setattr("minisum.fast.cuda.recording.Recorder", lambda: None)
    for form in FORMS:
        here = train(2, [form], ["3", "1+3"])
        there = train(2, [form], ["3", "1+3"], backend="cupy")
        for cell in here:
            np.testing.assert_allclose(here[cell]["losses"], there[cell]["losses"], rtol=1e-9)


# The command


def test_files_of_a_table(tmp_path, capsys):
    out = tmp_path / "run"
    flags = [*TINY, "--noise", "1+3,2", "--layers", "2,1", "--forms", "gd,full", "--out", out]
    assert call(*flags) == 0
    said = capsys.readouterr().out
    assert "2 layers, full" in said and "U(0, 2)" in said and "(0.202)" in said
    table = json.loads((out / "table1.json").read_text())
    assert table["columns"] == ["", "U(0, 2)", "{1, 3}"]
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert list(rows) == [
        "1 layer, full", "1 layer, two scalars", "2 layers, full", "2 layers, two scalars",
        "1 layer, closed form", *report.BASELINES,
    ]  # fmt: skip
    assert rows["2 layers, full"][1].endswith("(0.202)")
    assert rows["TunedRR"][0].endswith("(0.010)")
    results = json.loads((out / "results.json").read_text())
    assert len(results["cells"]) == 8 and set(results["baselines"]) == {"2", "1+3"}
    assert table["command"] == [f"python -m train.icl {' '.join(map(str, flags))}"]

    kept = {path: path.read_bytes() for path in (out / "cells").glob("*.json")}
    lost = out / "cells" / "full-2-2-layers.json"
    lost.unlink()
    kept_at = {path: path.stat().st_mtime_ns for path in kept if path != lost}
    assert call(*flags) == 0
    again = {path: path.read_bytes() for path in kept if path != lost}
    assert again == {path: kept[path] for path in again}
    assert {path: path.stat().st_mtime_ns for path in kept_at} == kept_at
    before, after = json.loads(kept[lost]), json.loads(lost.read_text())
    for cell in (before, after):
        del cell["seconds"], cell["sha256"]
    assert before == after


def test_figures(tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    flags = [*TINY, "--noise", "2,1+3", "--layers", "1,2", "--out", out]
    assert call(*flags) == 0
    for name in ("layers", "noise", "coefficients", "matrices"):
        assert (out / f"{name}.png").stat().st_size > 5000
        assert (out / f"{name}.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_coefficients_are_those_of_the_layers():
    """ω as the figure draws it gives the layer that the model has."""
    rng = np.random.default_rng(0)
    G = rng.normal(size=(1, 1, 11, 11))
    for form in ("free", "head", "gd"):
        arrays = InContextRegressor(form, 2).init(rng)
        drawn = figures.omegas({name: a[0].tolist() for name, a in arrays.items()})
        for l in range(2):
            A, _ = FORMS[form]({name: a[:, l] for name, a in arrays.items()}, G)
            B, _ = FORMS["free"]({"omega": drawn[None, l]}, G)
            np.testing.assert_allclose(A, B, rtol=1e-12)


def test_published_numbers_are_whole():
    assert set(report.PUBLISHED["noise"]) == set(sequences.LAWS)
    for form in ("full", "head", "gd"):
        assert set(report.PUBLISHED[form]) == set("1234567")
        assert all(len(row) == 10 for row in report.PUBLISHED[form].values())
    assert report.published("free", "5", 2) is None
    assert report.published("head", "5", 4) == 0.059 and report.published("AdaRR", "1+3") == 0.051


def test_quick_yields_to_other_flags():
    quick = icl.resolve({"quick": True, "seeds": 4})
    assert quick.chosen("noise") == ["5", "1+3"] and quick.depths() == [1, 2, 4]
    assert (quick.steps, quick.seeds) == (600, 4)
    table = icl.resolve({})
    assert [table.chosen(name) for name in icl.KNOWN] == list(icl.KNOWN.values())
    assert table.seeds == 5


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ("--forms diagonal", "--forms 'diagonal': choose one of full, free, head, gd"),
        ("--noise 8", "--noise '8'"),
        ("--layers 8", "--layers '8'"),
        ("--layers ,", "--layers names nothing"),
        ("--seeds 0", "--seeds 0: it must be at least 1"),
        ("--lr nan", "a finite number is needed"),
        ("--backend torch", "--backend 'torch': choose one of"),
        ("--out=", "--out is empty"),
    ],
)
def test_refusals(flags, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*flags.split()) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_settings_need_another_folder(tmp_path, capsys):
    flags = [*TINY, "--noise", "2", "--layers", "1", "--forms", "gd", "--out", tmp_path / "run"]
    assert call(*flags) == 0
    assert call(*flags, "--lr", 0.5) == 2
    assert "--lr 0.5 contradicts" in capsys.readouterr().err
    assert call(*flags, "--layers", "2") == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_keeps_the_cells(tmp_path):
    out = tmp_path / "run"
    flags = [*TINY[:2], "--steps", "100000", "--noise", "2", "--layers", "1", "--forms", "gd"]
    status, said = interrupted("train.icl", flags, out)
    assert status == 130
    assert b"finished cells are kept" in said and b"Traceback" not in said
    assert not list(out.rglob("*.tmp"))


def test_numbers_as_they_are_printed():
    numbers = {0.0459: "0.0459", 0.2419: "0.242", 1.774: "1.774", 3.2e-10: "3e-10", 0.0: "0.0000"}
    assert {value: report.number(value) for value in numbers} == numbers
    assert report.beside(0.24, 0.001, None) == "0.240 ± 0.0010"
    assert report.beside(0.24, 0, 0.242) == "0.240 (0.242)"
    assert report.beside(1e-6, 0, 1.19e-4) == "1e-06 (1e-04)"


def test_a_model_that_diverged_is_reported():
    cell = {"form": "head", "noise": "5", "layers": 4, "losses": [None, 0.5, 0.3]}
    cell |= {"standard_errors": [None, 0.02, 0.01], "largest": [None, 12.0, 7.0]}
    assert report.best(cell) == "0.300 ± 0.0100 (0.059)"
    assert report.spread(cell) == "0.400 ± 0.100; 12; 1 diverged"
    nothing = {"losses": [None], "standard_errors": [None]}
    assert report.best(cell | nothing) == "nan (0.059)"
    close = [cell | {"losses": [loss]} for loss in (0.0648, 0.0533, 0.0651, None)]
    assert report.agreement([*close, cell | {"form": "free"}]).startswith("2 of 4 losses are")
    assert training.numbers([0.5, np.nan, np.inf]) == [0.5, None, None]
