"""Linear attention: Katharopoulos et al. 2020, "Transformers are RNNs", with a choice of features.

Softmax attention weighs a value by exp(q·k/√h); here by φ(q)·φ(k), in the paper with φ(x) =
elu(x) + 1. Products of features can be summed over keys before any query is known. Time O(n d m)
with m features per head, memory O(n H m); state H (m h + m): in each head the sums of φ(k).T @ v
and of φ(k).
"""

from typing import NamedTuple

import numpy as np

from minisum import init, ops
from minisum.errors import require_known
from minisum.mixers.base import Mixer, from_heads, join, keep_real, to_heads
from minisum.ops import kernel_attention


class FeatureMap(NamedTuple):
    """The ops that map queries and keys, how many features they give, and what they read.

    width(h): m. params(heads, h): what each of the two learns. constants(h): what is drawn once.
    guard: what is added to the sum of the weights.
    """

    query: str
    key: str
    width: callable = lambda h: h
    params: callable = lambda heads, h: {}
    constants: callable = lambda h: {}
    guard: float = 1e-6


def orthogonal_directions(h):
    """omega of `ops.favor`: h log h rows with the norms of normal ones, orthogonal in blocks."""
    rng, m = np.random.default_rng(0), max(int(h * np.log(h)), 1)
    blocks = [np.linalg.qr(rng.normal(size=(h, h)))[0].T for _ in range(-(-m // h))]
    lengths = np.linalg.norm(rng.normal(size=(m, h)), axis=1)
    return {"omega": np.concatenate(blocks)[:m] * lengths[:, None]}


def measured_rate(heads, h):
    """The rate that Nahshan et al. measure for queries and keys of variance 1."""
    a, b = 0.14855178144710912, -0.35487039130661086
    return {"rate": np.full(heads, np.sqrt((1 - b) / (2 * a)))}


def identity(heads, h):
    return {"W": np.eye(h), "b": np.zeros(h)}


MAPS = {
    "elu1": FeatureMap("elu_plus_one", "elu_plus_one"),
    "relu": FeatureMap("relu", "relu"),
    "hedgehog": FeatureMap("hedgehog", "hedgehog", lambda h: 2 * h, identity, guard=1e-10),
    "focused": FeatureMap(
        "focused", "focused", params=lambda heads, h: {"s": np.zeros((heads, h))}
    ),
    "favor": FeatureMap(
        "favor", "favor", lambda h: max(int(h * np.log(h)), 1), constants=orthogonal_directions
    ),
    "norm_aware": FeatureMap("norm_aware_query", "norm_aware_key", lambda h: 2 * h),
    "log_normal": FeatureMap(
        "log_normal_query", "log_normal_key", params=measured_rate, guard=1e-8
    ),
    "dpfp": FeatureMap("dpfp", "dpfp", lambda h: 6 * h),
    "taylor": FeatureMap("taylor", "taylor", lambda h: 1 + h + h * (h + 1) // 2, guard=1e-12),
}


class LinearAttention(Mixer):
    """y = o @ Wo.T + bo, o_t = Σ_s φ(q_t)·φ(k_s) v_s / (Σ_s φ(q_t)·φ(k_s) + ε) in each head.

    q, k, v = linear maps of x with bias; s runs over all real tokens or, if causal, s <= t.
    feature_map: φ, a name in MAPS; see `minisum.ops.feature_maps` and `power_maps`. Queries and
    keys have separate parameters of the map. The rates of `log_normal` are learned (published:
    measured over the batch, so that a text's outputs depend on the rest of the batch). `focused`
    and `norm_aware` are without the published positions and convolution, `norm_aware` without its
    gate and norm. ε is what the map's authors add to the sum, or 1e-6; the authors of these two add
    it to the mean of the weights.

    The backward pass is that of `ops.kernel_attention`, then dq that of φ, and k alike.
    """

    def __init__(self, width, heads=1, max_len=512, causal=False, feature_map="elu1"):
        super().__init__(width, heads, max_len, causal)
        require_known("feature map", feature_map, MAPS)
        self.map = MAPS[feature_map]
        self.constants = self.map.constants(width // heads)

    def init(self, rng):
        h = self.width // self.heads
        layers = {name: init.linear(rng, self.width, self.width) for name in "qkvo"}
        maps = {name: self.map.params(self.heads, h) for name in ("q_map", "k_map")}
        return layers | {name: params for name, params in maps.items() if params}

    def mix(self, params, x, mask, state):
        q, back_q = to_heads(params["q"], x, self.heads)
        k, back_k = to_heads(params["k"], x, self.heads)
        v, back_v = to_heads(params["v"], x, self.heads)
        phi_q, back_phi_q = self.features(self.map.query, params.get("q_map", {}), q)
        phi_k, back_phi_k = self.features(self.map.key, params.get("k_map", {}), k)
        phi_k = keep_real(phi_k, mask)
        (o, state), back_core = kernel_attention(
            phi_q, phi_k, v, state, self.causal, self.map.guard
        )
        y, back_o = from_heads(params["o"], o)

        def back(dy):
            do, dparams_o = back_o(dy)
            dphi_q, dphi_k, dv, _ = back_core((do, None))
            dq, dq_map = back_phi_q(dphi_q)
            dk, dk_map = back_phi_k(keep_real(dphi_k, mask))
            dx, dparams = join(q=back_q(dq), k=back_k(dk), v=back_v(dv))
            maps = {"q_map": dq_map, "k_map": dk_map} if dq_map else {}
            return dx, dparams | {"o": dparams_o} | maps

        return (y, state), back

    def features(self, op, params, x):
        """φ(x) by the op of that name; back(dφ) -> dx, dparams."""
        y, back_op = getattr(ops, op)(x, *params.values(), **self.constants)

        def back(dy):
            dx, *dparams = back_op(dy) if params else (back_op(dy),)
            return dx, dict(zip(params, dparams, strict=True))

        return y, back

    def state_size(self, tokens=None):
        h = self.width // self.heads
        return self.heads * self.map.width(h) * (h + 1)
