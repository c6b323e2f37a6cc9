"""Every mixer as its paper's equations have it, in PyTorch: for test_mixer_rivals.py.

A twin takes the mixer's parameters by their dotted names, x and whether it is causal. It is the
definition, token by token or with all n² weights, in float64; PyTorch differentiates it.
"""

import math

import numpy as np
import torch

F = torch.nn.functional

B, n, d, H, MAX_LEN = 2, 70, 8, 2, 80


def affine(p, x, name):
    return x @ p[f"{name}.W"].T + p.get(f"{name}.b", 0.0)


def split(x, heads=H):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x):
    return x.transpose(1, 2).flatten(2)


def seen(causal):
    """1 where token t (row) may see token s (column)."""
    ones = torch.ones(n, n, dtype=torch.float64)
    return ones.tril() if causal else ones


def rms(x, gain):
    return gain * x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def recur(update, state):
    """Stack what `update(t, state) -> y, state` gives along time."""
    out = []
    for t in range(n):
        y, state = update(t, state)
        out.append(y)
    return torch.stack(out, dim=-2)


def contributions(p, x):
    names = [name for name in ("project", "project1", "project2") if f"{name}.W" in p]
    for name in names:
        x = affine(p, x, name).relu()
    return x


def output(p, s):
    return affine(p, s, "o") if "o.W" in p else s


def summation(p, x, causal):
    return output(p, seen(causal) @ contributions(p, x))


def running_mean(p, x, causal):
    return output(p, F.normalize(seen(causal), p=1, dim=-1) @ contributions(p, x))


def decayed_sum(p, x, causal):
    gamma = 1 - torch.tensor(np.geomspace(1 / 2, 1 / MAX_LEN, d))
    apart = torch.arange(n)[:, None] - torch.arange(n)
    weights = gamma ** apart.abs()[..., None] * seen(causal)[..., None]
    return output(p, torch.einsum("tsd,bsd->btd", weights, contributions(p, x)))


def fade(log_decay):
    """exp of the decays from token s up to the one before t, on either side.   (.., n, c)"""
    sums = F.pad(log_decay.cumsum(-2), (0, 0, 1, 0))  # of what stands before each token
    before = sums[..., :-1, :].unsqueeze(-2) - sums[..., None, :-1, :]
    after = sums[..., None, 1:, :] - sums[..., 1:, :].unsqueeze(-2)
    return torch.where(seen(True)[..., None] > 0, before, after).exp()


def gated_sum(p, x, causal):
    keep, new = affine(p, x, "forget").sigmoid(), contributions(p, x)
    if not causal:
        weights = fade(keep.log())  # (B, t, s, d)
        return affine(p, torch.einsum("btsd,bsd->btd", weights, (1 - keep) * new), "o")

    def update(t, h):
        h = keep[:, t] * h + (1 - keep[:, t]) * new[:, t]
        return h, h

    return affine(p, recur(update, torch.zeros_like(x[:, 0])), "o")


def aft_simple(p, x, causal):
    q, k, v = (affine(p, x, name) for name in "qkv")
    logits = k[:, None] + seen(causal).log()[..., None]
    return affine(p, q.sigmoid() * (logits.softmax(dim=2) * v[:, None]).sum(dim=2), "o")


def projection(p, x, causal):
    return F.gelu(affine(p, x, "project"))


def attention(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    return affine(p, join(F.scaled_dot_product_attention(q, k, v, is_causal=causal)), "o")


def rela(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    o = join((q @ k.mT / math.sqrt(q.shape[-1])).relu() * seen(causal) @ v)
    size = (o.square().mean(-1, keepdim=True) + 1e-8).sqrt()
    return affine(p, p["norm.gain"] * o / size * (p["norm.gate"] * o).sigmoid(), "o")


def window(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    i, j = torch.arange(n)[:, None], torch.arange(n)
    near = (j <= i) & (i - j < 64) if causal else i // 64 == j // 64
    return affine(p, join(F.scaled_dot_product_attention(q, k, v, attn_mask=near)), "o")


def tssa(p, x, causal):
    w = split(affine(p, x, "project"))
    square, tau = w.square(), p["temperature"][:, None]
    sums = torch.einsum("ts,bhsc->bhtc", seen(causal), square)
    scores = (square / sums).sum(-1)
    if causal:
        scores = scores + w.shape[-1] * p["positions"][:n].T
    member = (tau * scores).softmax(dim=1)[..., None]
    mass = torch.einsum("ts,bhsc->bhtc", seen(causal), member) + 1e-8
    spread = torch.einsum("ts,bhsc->bhtc", seen(causal), member * square) / mass
    return affine(p, join(-w * member / (1 + spread)), "o")


def simpletron(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    weights = q @ k.mT * seen(causal) / seen(causal).sum(-1, keepdim=True).sqrt()
    return join(weights @ v)


def first_order(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    logits = q @ k.mT / math.sqrt(d // H)
    weights = (1 + logits - logits.mean(-1, keepdim=True)) / n
    return affine(p, join(weights @ v), "o")


def linear_attention(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT * seen(causal)
    return affine(p, join(weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)), "o")


def cosformer(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    apart = (torch.arange(n)[:, None] - torch.arange(n)).double()
    weights = q.relu() @ k.relu().mT * torch.cos(math.pi / 2 / MAX_LEN * apart) * seen(causal)
    return affine(p, join(weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-6)), "o")


def retnet(p, x, causal):
    q, k, v, gate = (split(affine(p, x, name)) for name in ("q", "k", "v", "gate"))
    half = q.shape[-1] // 2
    angles = torch.arange(n)[:, None] * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.complex(a[..., :half], a[..., half:]) * turn for a in (q, k))
    scores = (q @ k.mH).real / math.sqrt(2 * half)
    apart = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    gamma = 1 - 2.0 ** (-5 - torch.arange(H, dtype=torch.float64))
    o = scores * gamma[:, None, None] ** apart * seen(causal) @ v
    return affine(p, join(rms(o, p["norm.gain"]) * F.silu(gate)), "o")


def gla(p, x, causal):
    q, k, v, gate = (split(affine(p, x, name)) for name in ("q", "k", "v", "gate"))
    keep = (split(F.logsigmoid(affine(p, affine(p, x, "decay1"), "decay2"))) / 16).exp()
    if not causal:
        weights = torch.einsum("bhtk,bhsk,bhtsk->bhts", q, k, fade(keep.log()))
        o = weights @ v / math.sqrt(q.shape[-1])
        return affine(p, join(rms(o, p["norm.gain"]) * F.silu(gate)), "o")

    def update(t, S):
        S = keep[:, :, t, :, None] * S + k[:, :, t, :, None] * v[:, :, t, None]
        return torch.einsum("bhk,bhkv->bhv", q[:, :, t], S) / math.sqrt(q.shape[-1]), S

    o = recur(update, torch.zeros(B, H, k.shape[-1], v.shape[-1], dtype=torch.float64))
    return affine(p, join(rms(o, p["norm.gain"]) * F.silu(gate)), "o")


def conv(p, x, name):
    flat, taps = affine(p, x, name).mT, p[f"{name}.conv"]
    mixed = F.conv1d(F.pad(flat, (len(taps) - 1, 0)), taps.T[:, None], groups=taps.shape[1])
    return F.silu(mixed.mT)


def unit(a):
    return a / (a.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def delta(p, x, keep, steps=1, beta_max=1):
    """keep (B, H, n, K or 1). The layers k, v and beta hold step after step."""
    q = unit(split(conv(p, x, "q")))
    k, v = (split(conv(p, x, name), steps * H) for name in "kv")
    beta = split(affine(p, x, "beta"), steps * H).sigmoid() * beta_max
    k, v, beta = (a.unflatten(1, (steps, H)) for a in (unit(k), v, beta))

    def update(t, S):
        S = keep[:, :, t, :, None] * S
        for j in range(steps):
            key, value, rate = (a[:, j, :, t] for a in (k, v, beta))
            wrong = rate * (value - torch.einsum("bhk,bhkv->bhv", key, S))
            S = S + key[..., None] * wrong[:, :, None]
        return torch.einsum("bhk,bhkv->bhv", q[:, :, t], S) / math.sqrt(q.shape[-1]), S

    S = torch.zeros(B, H, k.shape[-1], v.shape[-1], dtype=torch.float64)
    return rms(recur(update, S), p["norm.gain"])


def one_a_head(p, x):
    return split((-p["A_log"].exp() * F.softplus(affine(p, x, "decay"))).exp())


def deltanet(p, x, causal, beta_max=1):
    keep = torch.ones(B, H, n, 1, dtype=torch.float64)
    return affine(p, join(delta(p, x, keep, beta_max=beta_max)), "o")


def gated_deltanet(p, x, causal):
    gate = F.silu(split(affine(p, x, "gate")))
    return affine(p, join(delta(p, x, one_a_head(p, x)) * gate), "o")


def kda(p, x, causal, beta_max=1):
    z = split(affine(p, affine(p, x, "decay1"), "decay2"))
    keep = (-p["A_log"].exp()[:, None, None] * F.softplus(z)).exp()
    gate = split(affine(p, affine(p, x, "gate1"), "gate2")).sigmoid()
    return affine(p, join(delta(p, x, keep, beta_max=beta_max) * gate), "o")


def deltaproduct(p, x, causal, steps=2):
    gate = F.silu(split(affine(p, x, "gate"))) if "gate.W" in p else 1
    keep = one_a_head(p, x) if "A_log" in p else torch.ones(B, H, n, 1, dtype=torch.float64)
    return affine(p, join(delta(p, x, keep, steps, beta_max=2) * gate), "o")


def conv_and_bias(p, u):
    taps = p["conv.W"]
    padded = F.pad(u.mT, (len(taps) - 1, 0))
    return F.silu(F.conv1d(padded, taps.T[:, None], p["conv.b"], groups=taps.shape[1]).mT)


def mamba(p, x, causal):
    u, z = affine(p, x, "in").chunk(2, dim=-1)
    u = conv_and_bias(p, u)
    low, key, query = affine(p, u, "select").split([1, 16, 16], dim=-1)
    dt, A = F.softplus(affine(p, low, "dt")), -p["A_log"].exp()

    def update(t, h):
        write = (dt * u)[:, t, :, None] * key[:, t, None]
        h = (dt[:, t, :, None] * A).exp() * h + write
        return torch.einsum("ben,bn->be", h, query[:, t]) + p["D"] * u[:, t], h

    y = recur(update, torch.zeros(B, 2 * d, 16, dtype=torch.float64))
    return affine(p, y * F.silu(z), "o")


def log_linear(p, x, causal):
    """Mamba-2's weights of token t for token s, times that of the level at which they meet."""
    z, mixed, dt = affine(p, x, "in").split([2 * d, 2 * d + 256, H], dim=-1)
    u, key, query = conv_and_bias(p, mixed).split([2 * d, 128, 128], dim=-1)
    dt = F.softplus(dt + p["dt_bias"]).mT  # (B, H, n)
    sums = (dt * -p["A_log"].exp()[:, None]).cumsum(-1)
    weights = (sums[..., None] - sums[..., None, :]).clamp(max=0).exp() * seen(True)
    lam = F.softplus(p["lambda"][:, None] * split(affine(p, x, "levels")))
    level = torch.tensor([[(t ^ s).bit_length() for s in range(n)] for t in range(n)])
    weights = weights * lam.gather(-1, level.expand(B, H, n, n)) * (query @ key.mT)[:, None]
    o = weights @ (dt[..., None] * split(u)) + p["D"][:, None, None] * split(u)
    return affine(p, rms(join(o) * F.silu(z), p["norm.gain"]), "o")


def mamba2(p, x, causal):
    z, mixed, dt = affine(p, x, "in").split([2 * d, 2 * d + 256, H], dim=-1)
    u, key, query = conv_and_bias(p, mixed).split([2 * d, 128, 128], dim=-1)
    u, dt, A = split(u), F.softplus(dt + p["dt_bias"]).mT, -p["A_log"].exp()

    def update(t, S):
        write = torch.einsum("bk,bhv->bhkv", key[:, t], dt[:, :, t, None] * u[:, :, t])
        S = (dt[:, :, t] * A).exp()[..., None, None] * S + write
        read = torch.einsum("bk,bhkv->bhv", query[:, t], S)
        return read + p["D"][:, None] * u[:, :, t], S

    o = recur(update, torch.zeros(B, H, 128, 2 * d // H, dtype=torch.float64))
    return affine(p, rms(join(o) * F.silu(z), p["norm.gain"]), "o")


def fastformer(p, x, causal):
    q, k = affine(p, x, "q"), affine(p, x, "k")

    def pool(z, layer):
        weights = (affine(p, z, layer) / math.sqrt(d // H)).softmax(dim=1)
        return (weights.repeat_interleave(d // H, dim=-1) * z).sum(dim=1, keepdim=True)

    return affine(p, pool(k * pool(q, "alpha"), "beta") * q, "o") + q


def linformer(p, x, causal):
    q, k, v = (affine(p, x, name) for name in "qkv")
    k, v = (p[f"{name}_along.W"][:n].T @ a for name, a in (("k", k), ("v", v)))
    return affine(p, join(F.scaled_dot_product_attention(split(q), split(k), split(v))), "o")


def isab(p, x, causal):
    def block(name, x, z):
        q, k, v = (
            affine(p, a, f"{name}.{layer}") for layer, a in zip("qkv", (x, z, z), strict=True)
        )
        weights = (split(q) @ split(k).mT / math.sqrt(d)).softmax(-1)
        o = q + join(weights @ split(v))
        return o + affine(p, o, f"{name}.o").relu()

    return block("spread", x, block("gather", p["points"].expand(B, -1, -1), x))


def rala(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    q, k = F.elu(q) + 1, F.elu(k) + 1
    logits = q.mean(dim=2, keepdim=True) @ k.mT / math.sqrt(q.shape[-1])
    weights = q @ k.mT * logits.softmax(-1)
    o = weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)
    return affine(p, join(o) * affine(p, x, "gate"), "o")


def cottention(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    cosines = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    count = torch.full((n,), n)
    if causal:
        half = q.shape[-1] // 2
        rates = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        turn = torch.arange(n)[:, None] * rates
        turn = torch.polar(torch.ones_like(turn), turn)
        q, k = (torch.complex(a[..., :half], a[..., half:]) * turn for a in cosines)
        cosines, count = [torch.cat([a.real, a.imag], -1) for a in (q, k)], torch.arange(1, n + 1)
    v = v / count[:, None] ** p["m"].sigmoid()[:, None, None]
    return affine(p, join(cosines[0] @ cosines[1].mT * seen(causal) @ v), "o")


def in_blocks(W, x):
    return torch.einsum("gij,btgj->btgi", W, x.unflatten(-1, W.shape[:2])).flatten(2)


def mlstm(p, x, causal):
    u, z = affine(p, x, "up").chunk(2, dim=-1)
    c = conv_and_bias(p, u)
    flat = [in_blocks(p[name], a) for name, a in zip("qkv", (c, c, u), strict=True)]
    log_i, f = (split(affine(p, torch.cat(flat, dim=-1), name)) for name in ("input", "forget"))
    q, k, v = (split(a) for a in flat)
    F_ = F.logsigmoid(f).cumsum(2)
    D = torch.where(seen(True).bool(), F_ - F_.mT + log_i.mT, -math.inf)
    m = D.amax(-1, keepdim=True)
    C = q @ k.mT / math.sqrt(q.shape[-1]) * (D - m).exp()
    o = C @ v / (torch.maximum(C.sum(-1, keepdim=True).abs(), (-m).exp()) + 1e-6)
    normed = join(F.layer_norm(o, o.shape[-1:]))
    return affine(p, (p["norm.gain"] * normed + p["skip"] * c) * F.silu(z), "o")


def latte(p, x, causal):
    q, k, v = (split(affine(p, x, name)) for name in "qkv")
    logits = k.mT[:, :, :, None] + seen(causal).log()  # (B, H, L, n, n)
    averages = torch.einsum("bhlts,bhsv->bhtlv", logits.softmax(-1), v)
    return affine(p, join(torch.einsum("bhtl,bhtlv->bhtv", q.softmax(-1), averages)), "o")


def gsa(p, x, causal):
    q, k, v = (F.silu(split(affine(p, x, name))) for name in "qkv")
    keep = (F.logsigmoid(split(affine(p, x, "f"))) / 8).exp()

    def update(t, state):
        keys, values = state
        f, new = keep[:, :, t], 1 - keep[:, :, t]
        keys = keys * f[:, :, None] + k[:, :, t, :, None] * new[:, :, None]
        values = f[..., None] * values + new[..., None] * v[:, :, t, None]
        p = torch.einsum("bhk,bhkm->bhm", q[:, :, t], keys).softmax(-1)
        return torch.einsum("bhm,bhmv->bhv", p, values), (keys, values)

    keys = torch.zeros(B, H, d // H, keep.shape[-1], dtype=torch.float64)
    o = join(recur(update, (keys, keys.mT)))
    return affine(p, rms(F.silu(o), p["norm.gain"]), "o")


def hgrn2(p, x, causal, lower_bound=0):
    q, z, v = (split(affine(p, x, name)) for name in "qfv")
    keep = lower_bound + (1 - lower_bound) * z.sigmoid()
    if causal:
        sums = keep.log().cumsum(-2)
        weights = (sums[..., None, :] - sums[..., None, :, :]).clamp(max=0).exp()
    else:
        weights = fade(keep.log())
    weights = torch.einsum("bhtk,bhsk,bhtsk->bhts", F.silu(q), 1 - keep, weights) * seen(causal)
    o = join(weights @ v / math.sqrt(q.shape[-1]))
    return affine(p, rms(o, p["norm.gain"]), "o")


def rwkv6(p, x, causal):
    delta = F.pad(x, (0, 0, 1, 0))[:, :-1] - x
    low = affine(p, x + delta * p["mu"], "blend1").tanh().unflatten(-1, (5, 32))
    shares = p["blend"][:, None, None] + torch.einsum("bnir,idr->ibnd", low, p["blend2"])
    w, k, v, r, g = x + delta * shares
    r, k, v = (split(affine(p, z, name)) for z, name in ((r, "r"), (k, "k"), (v, "v")))
    w = split(-(p["decay"] + affine(p, affine(p, w, "decay1").tanh(), "decay2")).exp())
    bonus = p["bonus"][:, :, None]

    def update(t, S):
        written = k[:, :, t, :, None] * v[:, :, t, None]
        y = torch.einsum("bhk,bhkv->bhv", r[:, :, t], S + bonus * written)
        return y, w[:, :, t].exp()[..., None] * S + written

    o = recur(update, torch.zeros(B, H, d // H, d // H, dtype=torch.float64))
    normed = join(F.layer_norm(o, (d // H,), eps=64e-5))
    return affine(p, (p["norm.gain"] * normed + p["norm.bias"]) * F.silu(affine(p, g, "g")), "o")


def rwkv4(p, x, causal):
    shifted = F.pad(x, (0, 0, 1, 0))[:, :-1]
    r, k, v = (
        affine(p, p[f"{name}.mu"] * x + (1 - p[f"{name}.mu"]) * shifted, name) for name in "rkv"
    )
    apart = (torch.arange(n)[:, None] - torch.arange(n) - 1)[..., None]
    logits = k[:, None] - apart * p["decay"].exp()
    own = torch.eye(n, dtype=torch.bool)[..., None]
    logits = torch.where(own, k[:, None] + p["bonus"], logits) + seen(True).log()[..., None]
    return affine(p, r.sigmoid() * (logits.softmax(dim=2) * v[:, None]).sum(dim=2), "o")
