"""Every mixer in every form, small and with parameters drawn at random: for test_mixers*.py."""

import numpy as np
import pytest
from conftest import XP

from minisum import mixers
from minisum.backend import to_numpy
from minisum.mixers.linear_attention import MAPS
from minisum.params import Params, flatten
from minisum.strategies import cases

MAX_LEN = 12

FORMS = [
    (name, {"causal": causal})
    for name, mixer in mixers.TABLE.items()
    for causal in (False, True)
    if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
]
FORMS += [
    ("summation", {"causal": True, "two_layer": False}),
    ("summation", {"causal": False, "two_layer": True}),
    ("simpletron", {"causal": True, "prefix_scale": "max_len"}),
    ("simpletron", {"causal": True, "scale": "mean", "output": True}),
    ("simpletron", {"causal": False, "scale": "root_width", "output": True}),
    ("simpletron", {"causal": False, "scale": "learned"}),
    ("attention", {"causal": True, "head_width": 3}),
    *(
        ("linear_attention", {"causal": causal, "feature_map": name})
        for name in MAPS
        for causal in (False, True)
        if name != "elu1"
    ),
    ("window", {"causal": True, "window": 2}),
    ("window", {"causal": False, "window": 3}),
    ("window", {"causal": True, "window": 1, "head_width": 3}),
    ("linformer", {"causal": False, "rank": 3}),
    ("latte", {"causal": True, "latents": 2}),
    ("isab", {"causal": False, "points": 2}),
    ("log_linear", {"causal": True, "expand": 1, "state_width": 3, "conv": 1}),
    ("gsa", {"causal": True, "slots": 3}),
    ("hgrn2", {"causal": True, "lower_bound": 0.3}),
    ("mamba", {"causal": True, "expand": 1, "state_width": 3, "conv": 2}),
    ("mamba2", {"causal": True, "expand": 1, "state_width": 3, "conv": 1}),
    ("retnet", {"causal": True, "expand_v": 1}),
    ("gla", {"causal": True, "expand_k": 1}),
    ("deltanet", {"causal": True, "conv": 0, "beta_max": 2}),
    ("gated_deltanet", {"causal": True, "conv": 1, "expand_v": 1}),
    ("kda", {"causal": True, "conv": 0, "expand_v": 2, "beta_max": 2}),
    ("deltaproduct", {"causal": True, "conv": 1, "steps": 3, "expand_v": 1, "decay": False}),
    ("deltaproduct", {"causal": True, "conv": 0, "steps": 1, "gate": False}),
]
NAMES = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in FORMS]
every_form = pytest.mark.parametrize("form", FORMS, ids=NAMES)
every_causal_form = pytest.mark.parametrize(
    "form",
    [form for form in FORMS if form[1]["causal"]],
    ids=[name for name, form in zip(NAMES, FORMS, strict=True) if form[1]["causal"]],
)

# Two numbers a head at least: a norm over a single one leaves only its sign.
sizes = cases(XP, B=(1, 2), n=(1, 9), H=(1, 2))


def make(form, case, attempt=0):
    """A mixer of head width 4 and parameters a random step away from their first values."""
    name, options = form
    mixer = mixers.build(name, width=4 * case.H, heads=case.H, max_len=MAX_LEN, **options)
    rng = np.random.default_rng([case.seed, attempt])
    arrays = flatten(mixer.init(rng))
    params = {k: a + rng.normal(0, 0.4, a.shape) for k, a in arrays.items()}
    if name == "cosformer":
        # Without this most features are zero, and the denominators with them.
        params |= {k: params[k] + 1 for k in ("q.b", "k.b")}
    return mixer, nested(params)


def nested(arrays, dtype="float64"):
    """Arrays by dotted names as a mixer reads them: nested, on the backend, and read-only."""
    params = Params.from_arrays(arrays, XP, dtype)
    if XP is np:
        for a in params.flat.values():
            a.flags.writeable = False
    return params


def normal(case):
    """Tokens (B, n, d)."""
    return XP.asarray(case.rng.normal(size=(case.B, case.n, 4 * case.H)))


class Fixed:
    """A case of known sizes."""

    def __init__(self, **sizes):
        self.__dict__.update(sizes, seed=0, rng=np.random.default_rng(0))


def same(a, b):
    np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def close(a, b):
    np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-10)


def arrays_of(state):
    """The arrays of what a mixer carries from token to token, in one list."""
    if isinstance(state, tuple):
        return [array for part in state for array in arrays_of(part)]
    return [state] if hasattr(state, "dtype") else []
