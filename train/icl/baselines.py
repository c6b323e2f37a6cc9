"""What needs no training: ridge regression, ŵ(v) = (S + v I)⁻¹ α, and the best single layer.

- ConstRR: one v for all sequences
- AdaRR: v = σ̂², the residual variance of least squares
- TunedRR: v = m · min(σ̂², c)

In the eigenvectors of S = Xᵀ X, ŵ(v) is α / (s + v), so that v can be tried by the hundred. It, m
and c are chosen on other sequences than those of the test.
"""

from dataclasses import dataclass

import numpy as np

from train.icl import sequences
from train.icl.training import PROFILE_ROWS

TUNING_ROWS = 10_000  # or as many as the test has
SHARES = np.linspace(0.01, 1, 100)  # v of ConstRR, as a share of the largest σ²
FACTORS, CAPS = np.linspace(1, 2, 21), np.linspace(0.3, 1, 29)  # m; c as a share of the same


@dataclass(frozen=True)
class Spectrum:
    """Sequences in the eigenvectors of their S: s, alpha (B, d), and σ², σ̂² (B,)."""

    s: np.ndarray
    alpha: np.ndarray
    noise: np.ndarray
    estimate: np.ndarray

    def errors(self, v):
        """½ |ŵ(v) - ŵ_σ|² (B,)   v a number or (B,)"""
        apart = 1 / (self.s + np.reshape(v, (-1, 1))) - 1 / (self.s + self.noise[:, None])
        return ((self.alpha * apart) ** 2).sum(axis=1) / 2

    def oracle(self):
        """½ E[|ŵ_σ - w|² given the examples] (B,): half the trace of w's covariance."""
        return (self.noise[:, None] / (self.s + self.noise[:, None])).sum(axis=1) / 2

    def tuned(self, factor, cap):
        return factor * np.minimum(self.estimate, cap)


def decomposed(drawn):
    """x, w, ξ/σ, u (B, ...), of sequences.draw for S = 1; eigenvalues and vectors of S."""
    x, w, noise, u = (part[0] for part in drawn)
    return x, w, noise, u, *np.linalg.eigh(x.swapaxes(1, 2) @ x)


def spectrum(draws, sigmas):
    """draws: as from `decomposed`; sigmas (B,)"""
    x, w, noise, _, s, vectors = draws
    y = (x @ w[:, :, None])[:, :, 0] + sigmas[:, None] * noise
    alpha = ((y[:, None] @ x) @ vectors)[:, 0]
    residual = (y**2).sum(axis=1) - (alpha**2 / s).sum(axis=1)
    estimate = np.maximum(residual, 0) / (sequences.PAIRS - sequences.DIMS)
    return Spectrum(s, alpha, sigmas**2, estimate)


def measure(names, rows):
    """{law: all baselines on `rows` sequences, JSON-able}"""
    tuning = decomposed(sequences.draw([[sequences.TUNING_STREAM]], min(TUNING_ROWS, rows)))
    parts = zip(*sequences.tests(rows), strict=True)
    test = decomposed([np.concatenate(part, axis=1) for part in parts])
    return {name: measure_law(name, tuning, test) for name in names}


def measure_law(name, tuning, test):
    law = sequences.LAWS[name]
    top = sequences.largest_noise(law) ** 2
    tried = spectrum(tuning, law.sigmas(tuning[3]))
    shares = [tried.errors(share * top).mean() for share in SHARES]
    constant = top * SHARES[np.argmin(shares)]
    trials = [[tried.errors(tried.tuned(m, c * top)).mean() for c in CAPS] for m in FACTORS]
    i, j = np.unravel_index(np.argmin(trials), np.shape(trials))
    factor, cap = FACTORS[i], top * CAPS[j]
    if top == 0:  # every v is as good
        constant, factor, cap = 0.0, 1.0, 0.0
    choices = {
        "ConstRR": lambda found: constant,
        "AdaRR": lambda found: found.estimate,
        "TunedRR": lambda found: found.tuned(factor, cap),
    }
    found = spectrum(test, law.sigmas(test[3]))
    few = [part[:PROFILE_ROWS] for part in test]
    levels = sequences.levels(law)
    profile = [spectrum(few, np.full(len(few[0]), sigma)) for sigma in levels]
    oracle = mean_and_error(found.oracle())
    result = {
        "noise": name, "constant": constant, "factor": factor, "cap": cap, "oracle": oracle,
        "levels": levels.tolist(), "profiles": {},
        "one layer": {"loss": one_layer(law)["loss"] - oracle["loss"], "error": oracle["error"]},
    }  # fmt: skip
    for baseline, choose in choices.items():
        result[baseline] = mean_and_error(found.errors(choose(found)))
        losses = [float(at.errors(choose(at)).mean()) for at in profile]
        result["profiles"][baseline] = losses
    return result


def mean_and_error(errors):
    return {"loss": float(errors.mean()), "error": float(errors.std() / len(errors) ** 0.5)}


def one_layer(law):
    """The best of all layers alone, by hand: ŵ = η α, since only ω_yx reaches the answer.

    E⟨α, w⟩ = n d and E|α|² = n d (n + d + 1 + E σ²), so η = 1 / (n + d + 1 + E σ²) and the loss
    ½ E|ŵ - w|² is ½ d (1 - n η). As a coefficient of G = (1/n) Σ e eᵀ, ω_yx = -n η.
    """
    n, d = sequences.PAIRS, sequences.DIMS
    eta = 1 / (n + d + 1 + sequences.noise_variance(law))
    return {"eta": eta, "omega_yx": -n * eta, "loss": d * (1 - n * eta) / 2}
