"""The mixers against independent code: PyTorch's own, and twins written from the papers' equations.

Skipped without PyTorch. Where the package fla-core is installed, its reference operations too.
"""

import importlib.util
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minisum import mixers, ops
from minisum.mixers.linear_attention import MAPS as linear_attention_maps
from minisum.mixers.linear_attention import orthogonal_directions
from minisum.params import Params, flatten

pytest.importorskip("torch")

import torch
import twins
from twins import MAX_LEN, B, F, H, affine, d, join, n, seen, split

FORMS = [
    (name, causal)
    for name, mixer in mixers.TABLE.items()
    for causal in (False, True)
    if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
]


@pytest.mark.parametrize(("name", "causal"), FORMS)
def test_a_twin_agrees(name, causal):
    agree(getattr(twins, name), name, causal)


@pytest.mark.parametrize(
    ("name", "of_both", "options"),
    [
        ("deltanet", {"beta_max": 2.0}, {}),
        ("kda", {"beta_max": 2.0}, {"expand_v": 2}),
        ("deltaproduct", {"steps": 3}, {"decay": False, "gate": False}),
        ("gsa", {}, {"slots": 3}),
        ("hgrn2", {"lower_bound": 0.3}, {}),
    ],
)
def test_a_twin_agrees_on_options(name, of_both, options):
    agree(partial(getattr(twins, name), **of_both), name, True, **of_both, **options)


def agree(twin, name, causal, **options):
    """Output and gradients of a mixer beside its twin's."""
    mixer = mixers.build(name, width=d, heads=H, max_len=MAX_LEN, causal=causal, **options)
    rng = np.random.default_rng(0)
    arrays = {k: a + rng.normal(0, 0.4, a.shape) for k, a in flatten(mixer.init(rng)).items()}
    x, dy = rng.normal(size=(2, B, n, d))
    y, back = mixer(Params.from_arrays(arrays, dtype=np.float64), x)
    dx, dparams = back(dy)

    p = {k: torch.tensor(a, requires_grad=True) for k, a in arrays.items()}
    twin_x = torch.tensor(x, requires_grad=True)
    twin_y = twin(p, twin_x, causal)
    twin_y.backward(torch.tensor(dy))
    close(y, twin_y.detach(), "y")
    close(dx, twin_x.grad, "dx")
    for key in arrays:
        close(flatten(dparams)[key], p[key].grad, key)


def hedgehog(x, p):
    z = 2 * (x @ p["W"].T + p["b"])
    return torch.cat([z, -z], dim=-1).softmax(-1)


def focused(x, p):
    r = join((x.relu() + 1e-6) / F.softplus(p["s"])[:, None])
    return split(r**3 / (r**3).norm(dim=-1, keepdim=True) * r.norm(dim=-1, keepdim=True))


def norm_aware(x, p):
    length = x.norm(dim=-1, keepdim=True)
    u, power = x / length, 3 * (0.5 + length.tanh())
    return torch.cat([u.relu() ** power, (-u).relu() ** power], dim=-1)


def dpfp(x, p):
    z = torch.cat([x.relu(), (-x).relu()], dim=-1)
    return torch.cat([z * z.roll(j, dims=-1) for j in (1, 2, 3)], dim=-1)


def taylor(x, p):
    h = x.shape[-1]
    i, j = torch.triu_indices(h, h, 1)
    pairs = [x**2 / math.sqrt(2 * h), x[..., i] * x[..., j] / math.sqrt(h)]
    return torch.cat([torch.ones_like(x[..., :1]), x / h**0.25, *pairs], dim=-1)


def favor(x, p):
    omega, x = torch.tensor(orthogonal_directions(x.shape[-1])["omega"]), x * x.shape[-1] ** -0.25
    exponent = x @ omega.T - x.square().sum(-1, keepdim=True) / 2
    return (exponent.exp() + 1e-4) / math.sqrt(len(omega))


MAPS = {
    "elu1": (lambda x, p: F.elu(x) + 1,) * 2,
    "relu": (lambda x, p: x.relu(),) * 2,
    "hedgehog": (hedgehog,) * 2,
    "focused": (focused,) * 2,
    "favor": (favor,) * 2,
    "norm_aware": (norm_aware, lambda x, p: torch.cat([x.relu() ** 3, (-x).relu() ** 3], dim=-1)),
    "log_normal": (
        lambda x, p: (p["rate"][:, None, None] * x).softmax(-1),
        lambda x, p: (p["rate"][:, None, None] * x).exp(),
    ),
    "dpfp": (dpfp,) * 2,
    "taylor": (taylor,) * 2,
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", linear_attention_maps)
def test_a_feature_map_agrees(name, causal):
    def twin(p, x, causal):
        q, k, v = (split(affine(p, x, part)) for part in "qkv")
        own = {
            part: {key.partition(".")[2]: a for key, a in p.items() if key.startswith(part)}
            for part in ("q_map", "k_map")
        }
        query, key = MAPS[name]
        weights = query(q, own["q_map"]) @ key(k, own["k_map"]).mT * seen(causal)
        guard = {"hedgehog": 1e-10, "log_normal": 1e-8, "taylor": 1e-12}.get(name, 1e-6)
        return affine(p, join(weights @ v / (weights.sum(-1, keepdim=True) + guard)), "o")

    agree(twin, "linear_attention", causal, feature_map=name)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", ["root_width", "mean", "learned"])
def test_a_scale_of_simpletron_agrees(scale, causal):
    def twin(p, x, causal):
        y = split(twins.simpletron(p, x, causal))
        count = seen(causal).sum(-1, keepdim=True)
        factors = {"root_width": (d // H) ** -0.5, "mean": count**-0.5}
        factors["learned"] = p["scale"][:, None, None] if scale == "learned" else None
        return affine(p, join(y * factors[scale]), "o")

    agree(twin, "simpletron", causal, scale=scale, output=True)


def close(a, b, name, tolerance=1e-9):
    """Relative to the largest entry; a gradient may be nothing but rounding, as is that of a
    softmax with respect to a bias of its keys."""
    b = b.numpy()
    atol = tolerance * abs(b).max() + 1e-12
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=atol, err_msg=name)


def reference(module, function):
    """A function of fla-core's plain PyTorch references, read by path: the package wants a GPU."""
    pytest.importorskip("einops")
    package = importlib.util.find_spec("fla")
    if package is None:
        pytest.skip("fla-core is not installed")
    path = Path(next(iter(package.submodule_search_locations))) / "ops" / module / "naive.py"
    spec = importlib.util.spec_from_file_location(f"reference_{module}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, function)


def heads_last(*arrays):
    return tuple(a.transpose(1, 2) for a in arrays)


def by_reference(name, q, k, v, beta, log_decay):
    """Each reference computes in float32 inside. Layouts and orders of arguments are its own."""
    if name == "retention":
        return reference(name, "naive_retention")(q, k, v)
    if name == "delta_rule":
        return reference(name, "delta_rule_recurrence")(q, k, v, beta)[0]
    if name == "gla":
        run = reference(name, "naive_recurrent_gla")
        return run(*heads_last(q, k, v, log_decay))[0].transpose(1, 2)
    run = reference(name, "naive_recurrent_gated_delta_rule")
    scalars = [a[..., 0].transpose(1, 2) for a in (beta, log_decay)]
    return run(*heads_last(q, k, v), *scalars)[0].transpose(1, 2)


@pytest.mark.parametrize("name", ["retention", "gla", "delta_rule", "gated_delta_rule"])
def test_fla_references_agree(name):
    rng = np.random.default_rng(0)
    q, k, v, dy = rng.normal(size=(4, B, H, n, 4))
    k = ops.l2_norm(k)[0]
    beta = rng.uniform(0, 1, (B, H, n, 1))
    log_decay = rng.uniform(-1, 0, (B, H, n, 4 if name == "gla" else 1))
    if name == "retention":
        gamma = 1 - 2.0 ** (-5 - np.arange(H))
        log_decay = np.broadcast_to(np.log(gamma)[:, None, None], beta.shape)
    arrays = [torch.tensor(a, requires_grad=True) for a in (q, k, v, beta, log_decay)]
    rival = by_reference(name, *arrays)
    rival.backward(torch.tensor(dy))

    if name in ("retention", "gla"):
        (y, _), back = ops.causal_product(q / 2, k, v, log_decay)
        dq, dk, dv, dlog_decay, _ = back((dy, None))
        dbeta = None
    else:
        rule = (q / 2, k, v, beta, log_decay if name == "gated_delta_rule" else None)
        (y, _), back = ops.delta_rule(*rule)
        dq, dk, dv, dbeta, dlog_decay, _ = back((dy, None))
    close(y, rival.detach(), "y", 1e-5)
    for key, ours, theirs in zip(
        ("q", "k", "v", "beta", "log_decay"),
        (dq / 2, dk, dv, dbeta, dlog_decay),
        arrays,
        strict=True,
    ):
        if theirs.grad is not None:
            close(ours, theirs.grad, key, 1e-5)
