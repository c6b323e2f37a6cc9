"""Against an independent implementation: PyTorch's outputs, gradients and training, in float64."""

from functools import partial

import numpy as np
import pytest
from conftest import XP
from forms import ATTENTIONS
from hypothesis import given
from op_cases import draw

from minisum import backend, ops
from minisum.models import classifier
from minisum.optim import Adam
from minisum.params import Params
from minisum.shards import Shards

torch = pytest.importorskip("torch")
F = torch.nn.functional

RTOL, ATOL = 1e-9, 1e-11


def host(x):
    return backend.to_numpy(x)


def tensor(x):
    x = np.array(host(x))
    return torch.tensor(x, requires_grad=x.dtype.kind == "f")


def their_attention(q, k, v, mask=None, causal=False):
    """Theirs gives NaN in a row without a key; ours gives zeros, so such rows are left out here."""
    B, H, n, _ = q.shape
    visible = torch.ones(B, 1, n, k.shape[2], dtype=bool)
    if mask is not None:
        visible = visible & mask[:, None, None, :]
    if causal:
        visible = torch.tril(visible)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | ~visible.any(-1, keepdim=True))
    return torch.where(visible.any(-1, keepdim=True), y, 0.0)


def qkv(c):
    return c.normal("B H n h"), c.normal("B H n h"), c.normal("B H n o")


# name -> ours, theirs, the arrays of a case
RIVALS = {
    "linear": (ops.linear, F.linear, lambda c: (c.normal("B n d"), c.normal("o d"), c.normal("o"))),
    "embed": (ops.embed, F.embedding, lambda c: (c.ids("B n", c.V), c.normal("V d"))),
    "relu": (ops.relu, F.relu, lambda c: (c.normal("B n d"),)),
    "gelu": (ops.gelu, F.gelu, lambda c: (c.normal("B n d", 3),)),
    "silu": (ops.silu, F.silu, lambda c: (c.normal("B n d", 3),)),
    "sigmoid": (ops.sigmoid, torch.sigmoid, lambda c: (c.normal("B n d", 3),)),
    "softplus": (
        ops.softplus, lambda x: F.softplus(x, threshold=100), lambda c: (c.normal("B n d", 3),)),
    "layer_norm": (
        ops.layer_norm, lambda x, g, b: F.layer_norm(x, x.shape[-1:], g, b),
        lambda c: (c.normal("B n 6"), c.normal("6"), c.normal("6"))),
    "rms_norm": (
        ops.rms_norm, lambda x, g: F.rms_norm(x, x.shape[-1:], g, 1e-6),
        lambda c: (c.normal("B n 6"), c.normal("6"))),
    "cumsum_tokens": (ops.cumsum_tokens, lambda x: x.cumsum(1), lambda c: (c.normal("B n d"),)),
    "mean_tokens": (ops.mean_tokens, lambda x: x.mean(1), lambda c: (c.normal("B n d"),)),
    **{f"attention {name}{' causal' * causal}": (
        partial(form, causal=causal), partial(their_attention, causal=causal),
        lambda c: (*qkv(c), c.mask()))
       for name, form in ATTENTIONS.items() for causal in (False, True)},
    "attention without mask": (ops.attention, their_attention, qkv),
    "cross_entropy": (
        ops.cross_entropy,
        lambda x, t: (
            F.cross_entropy(x, t, ignore_index=-1, reduction="sum") / max(1, (t != -1).sum())),
        lambda c: (c.normal("B V", 3), c.ids("B", c.V, -1))),
    "binary_cross_entropy": (
        ops.binary_cross_entropy, F.binary_cross_entropy_with_logits,
        lambda c: (c.normal("B n", 3), c.uniform("B n", 0, 1))),
    "mean_squared_error": (
        ops.mean_squared_error, F.mse_loss, lambda c: (c.normal("B n"), c.normal("B n"))),
}  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
@given(case=draw())
def test_outputs_and_gradients_are_pytorchs(name, case):
    ours, theirs, make = RIVALS[name]
    arrays = make(case)
    tensors = [tensor(a) for a in arrays]
    y, back = ours(*arrays)
    wanted = theirs(*tensors)
    np.testing.assert_allclose(host(y), wanted.detach().numpy(), RTOL, ATOL)
    dy = case.rng.normal(size=y.shape)
    wanted.backward(torch.tensor(dy))
    gradients = back(XP.asarray(dy))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for gradient, t in zip(gradients, tensors, strict=False):
        if t.requires_grad:
            if hasattr(gradient, "dense"):
                gradient = gradient.dense()
            np.testing.assert_allclose(host(gradient), t.grad.numpy(), RTOL, ATOL)
        else:
            assert gradient is None


# Whole models, from the same weights


class Twin(torch.nn.Module):
    """The classifiers as PyTorch would write them."""

    def __init__(self, params, mixer, heads):
        super().__init__()
        self.mixer, self.heads = mixer, heads
        self.weights = {name: tensor(a) for name, a in params.flat.items()}

    def forward(self, ids, mask):
        w = self.weights
        x = F.embedding(ids, w["embedding"])
        real = mask[:, :, None].double()
        n = ids.shape[1]
        if self.mixer == "summation":
            x = F.relu(F.linear(x * (w["positions"][:n] + 1), w["project.W"]))
            pooled = (x * real).sum(1)
        else:
            if self.mixer == "attention":
                x = self.attend(x + w["positions"][:n], mask)
            pooled = (x * real).sum(1) / real.sum(1).clamp(min=1)
        return F.linear(pooled, w["head.W"], w["head.b"])

    def attend(self, x, mask):
        w = self.weights
        q, k, v = (
            F.linear(x, w[f"mixer.{c}.W"], w[f"mixer.{c}.b"])
            .unflatten(2, (self.heads, -1))
            .transpose(1, 2)
            for c in "qkv"
        )
        y = their_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        return F.linear(y, w["mixer.o.W"], w["mixer.o.b"])


@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_ten_training_steps_are_pytorchs(mixer):
    rng = np.random.default_rng(5)
    B, n, V, d, C, heads = 8, 12, 20, 8, 4, 2
    model = classifier.build(mixer, V, d, C, n, heads=heads)
    params = Params.from_arrays(model.init(rng), XP, "float64")
    grads = params.zeros_like()
    twin = Twin(params, mixer, heads)
    adam = Adam(params)
    their_adam = torch.optim.Adam(twin.weights.values(), lr=0.01)
    runner = Shards(model, rows=3, threads=2 if XP is np else 1)
    first = None
    for _ in range(10):
        lengths = rng.integers(1, n, B, endpoint=True)
        batch = {
            "ids": rng.integers(0, V, (B, n)).astype(np.int32),
            "mask": np.arange(n) < lengths[:, None],
            "targets": rng.integers(0, C, B).astype(np.int32),
        }
        loss = float(runner.loss_and_grads(params, grads, backend.to_device(batch, XP)))
        their_adam.zero_grad()
        logits = twin(*(torch.tensor(batch[name]) for name in ("ids", "mask")))
        their_loss = F.cross_entropy(logits, torch.tensor(batch["targets"]).long())
        their_loss.backward()
        assert loss == pytest.approx(float(their_loss.detach()), rel=1e-9)
        for name, t in twin.weights.items():
            np.testing.assert_allclose(host(grads.flat[name]), t.grad.numpy(), rtol=1e-6, atol=1e-9)
        adam.step(grads, 0.01)
        their_adam.step()
        first = first or loss
    assert loss != first
