"""Three mixers on a GPU beside compiled PyTorch: python -m tests.gpu_rivals [NAME ...]

One layer, forward and backward, 8 x 1,024 tokens, width 256, 4 heads, float32: ours recorded and
replayed, theirs the same function in chunks of 64, as a PyTorch user would write it, by
torch.compile, plain and with its own graphs. Prints a line of JSON for each: name, milliseconds of
ours, of theirs in both modes, the largest difference of the outputs and of the gradients of x, each
over the largest value.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from minisum import backend, mixers
from minisum.fast.cuda.recording import Recorder
from minisum.params import Params, flatten

BATCH, TOKENS, WIDTH, HEADS, CHUNK = 8, 1024, 256, 4, 64


def affine(p, x, name):
    return F.linear(x, p[f"{name}.W"], p.get(f"{name}.b"))


def heads(x):
    """(B, n, d) -> (B, H, chunks, CHUNK, h)"""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2).unflatten(2, (-1, CHUNK))


def output(p, o):
    return affine(p, o.flatten(2, 3).transpose(1, 2).flatten(2), "o")


def rms(x, gain):
    return gain * x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def linear_attention(p, x):
    q, k, v = (heads(affine(p, x, name)) for name in "qkv")
    q, k, v = F.elu(q) + 1, F.elu(k) + 1, F.pad(v, (0, 1), value=1.0)
    added = k.mT @ v
    sums = q @ (added.cumsum(2) - added) + (q @ k.mT).tril() @ v
    return output(p, sums[..., :-1] / (sums[..., -1:] + 1e-6))


def gla(p, x):
    q, k, v, gate = (heads(affine(p, x, name)) for name in ("q", "k", "v", "gate"))
    log_decay = F.logsigmoid(heads(affine(p, affine(p, x, "decay1"), "decay2"))) / 16
    b = log_decay.cumsum(-2)
    end = b[..., -1:, :]
    q, near, far = q * b.exp() * q.shape[-1] ** -0.5, k * (-b).exp(), k * (end - b).exp()
    added, keep = far.mT @ v, end.exp().mT
    S, starts = torch.zeros_like(added[:, :, 0]), []
    for c in range(added.shape[2]):
        starts.append(S)
        S = keep[:, :, c] * S + added[:, :, c]
    o = q @ torch.stack(starts, 2) + (q @ near.mT).tril() @ v
    return output(p, rms(o, p["norm.gain"]) * F.silu(gate))


def conv(p, x, name):
    flat, taps = affine(p, x, name).mT, p[f"{name}.conv"]
    mixed = F.conv1d(F.pad(flat, (len(taps) - 1, 0)), taps.T[:, None], groups=taps.shape[1])
    return heads(F.silu(mixed.mT))


def deltanet(p, x):
    q, k, v = (conv(p, x, name) for name in "qkv")
    q, k = (a * (a.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for a in (q, k))
    q, beta = q * q.shape[-1] ** -0.5, heads(affine(p, x, "beta")).sigmoid()
    system = torch.eye(CHUNK, device=x.device, dtype=x.dtype) + (beta * k @ k.mT).tril(-1)
    both = torch.linalg.solve_triangular(system, beta * torch.cat([v, k], -1), upper=False)
    new, asked = both[..., : v.shape[-1]], both[..., v.shape[-1] :]
    near, S, out = (q @ k.mT).tril(), torch.zeros_like(k[:, :, 0].mT @ v[:, :, 0]), []
    for c in range(q.shape[2]):
        u = new[:, :, c] - asked[:, :, c] @ S
        out.append(q[:, :, c] @ S + near[:, :, c] @ u)
        S = S + k[:, :, c].mT @ u
    return output(p, rms(torch.stack(out, 2), p["norm.gain"]))


LAYERS = {"linear_attention": linear_attention, "gla": gla, "deltanet": deltanet}


def least_ms(step, wait, rounds=12, steps=5):
    found = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        found.append((time.perf_counter() - start) / steps)
    return round(1000 * min(found), 2)


def sides(name, device):
    """(ours, theirs): functions of the same weights and tokens that return y and dx."""
    rng = np.random.default_rng(0)
    mixer = mixers.build(name, WIDTH, HEADS, TOKENS, causal=True)
    arrays = {k: np.asarray(a, np.float32) for k, a in flatten(mixer.init(rng)).items()}
    x, dy = (rng.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32) for _ in "xy")
    xp = backend.get("cupy" if device == "cuda" else "numpy")
    params = Params.from_arrays(arrays, xp)
    batch = {"x": xp.asarray(x), "dy": xp.asarray(dy)}

    def both_ways(params, batch):
        y, back = mixer(params, batch["x"])
        return xp.stack([y, back(batch["dy"])[0]])

    p = {k: torch.tensor(a, device=device, requires_grad=True) for k, a in arrays.items()}
    tokens, cotangent = (torch.tensor(a, device=device) for a in (x, dy))

    def theirs(layer):
        leaf = tokens.detach().requires_grad_()
        for parameter in p.values():
            parameter.grad = None
        y = layer(p, leaf)
        y.backward(cotangent)
        return torch.stack([y.detach(), leaf.grad])

    call = Recorder() if device == "cuda" else lambda work, vectors, batch: work(*vectors, batch)
    return lambda: call(both_ways, (params,), batch), theirs


def compare(name, device="cuda"):
    ours, theirs = sides(name, device)
    found, truth = backend.to_numpy(ours()), theirs(LAYERS[name]).cpu().numpy()
    apart = [float(abs(a - b).max() / abs(b).max()) for a, b in zip(found, truth, strict=True)]
    if device != "cuda":
        return [name, *apart]
    wait = torch.cuda.synchronize
    times = []
    for mode in ("default", "reduce-overhead"):
        layer = torch.compile(LAYERS[name], mode=mode)
        for _ in range(3):
            theirs(layer)
        times.append(least_ms(lambda layer=layer: theirs(layer), wait))
    ours(), ours()
    return [name, least_ms(ours, wait), *times, *(float(f"{a:.1e}") for a in apart)]


def main():
    for name in sys.argv[1:] or LAYERS:
        print(json.dumps(compare(name)), flush=True)


if __name__ == "__main__":
    main()
