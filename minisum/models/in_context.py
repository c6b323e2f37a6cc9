"""In-context regression by linear self-attention: examples (x_i, y_i) in, the answer to x_t out.

Tokens are e_i = (x_i, y_i) for n examples and e_t = (x_t, 0) for the query. A layer updates all of
them, including the query, from the examples; the answer is the query's last number, negated:

    e_i ← e_i + P @ G @ Q @ e_i,   G = (1/n) Σ_{j ≤ n} e_j @ e_j.T,   ŷ = -(last number of e_t)

There is no softmax, no norm and no feed-forward network. A layer is one matrix A = I + P @ G @ Q
for all tokens of a sequence. So the examples are needed only through G, which a layer turns into
A @ G @ A.T, and the effect of L layers on the query is one product:

    A_{L-1} ... A_0 e_t,   its last number is -⟨ŵ, x_t⟩ with (-ŵ, ·) the last row of A_{L-1} ... A_0

`by_tokens` computes the first and `by_gram`, which needs neither the query nor the n tokens, the
second; they agree to rounding, forward and backward.

The first axis of all arrays is that of K models, which are trained at once. D = d + 1; for tokens E
(K, B, n + 1, D) and G (K, B, D, D) it may be 1: the same for all models.

Source: Vladymyrov et al. 2024, "Linear Transformers are Versatile In-Context Learners".
"""

import numpy as np

from minisum.backend import add_into, array_module, constant
from minisum.fast.cuda.recording import matmul
from minisum.models.base import Model


def full_layer(params, G):
    """A = I + P @ G @ Q.   P, Q (K, D, D), G (K, B, D, D) -> A (K, B, D, D)

    With H = G @ Q: dP = Σ_B dA @ H.T, dH = P.T @ dA, dQ = Σ_B G.T @ dH, dG = dH @ Q.T.
    """
    P, Q = params["P"][:, None], params["Q"][:, None]
    H = product(G, Q)

    def back(dA):
        dH = product(transposed(P), dA)
        dP, dQ = product(dA, transposed(H)), product(transposed(G), dH)
        return product(dH, transposed(Q)), {"P": dP.sum(axis=1), "Q": dQ.sum(axis=1)}

    return identity(G) + product(P, H), back


def free_layer(params, G):
    """Four scalars per layer, as with two or more diagonal heads.   omega (K, 2, 2)"""
    A, back_blocks = scale_blocks(params["omega"], G)

    def back(dA):
        domega, dG = back_blocks(dA)
        return dG, {"omega": domega}

    return A, back


def head_layer(params, G):
    """One head with diagonal P and Q: ω = p @ q.T, so that ω_xx ω_yy = ω_xy ω_yx.   p, q (K, 2)"""
    p, q = params["p"], params["q"]
    A, back_blocks = scale_blocks(p[:, :, None] * q[:, None, :], G)

    def back(dA):
        domega, dG = back_blocks(dA)
        dp, dq = (domega * q[:, None, :]).sum(axis=2), (domega * p[:, :, None]).sum(axis=1)
        return dG, {"p": dp, "q": dq}

    return A, back


def gd_layer(params, G):
    """GD++: one head with q = (1, 0), which leaves ω_xx and ω_yx.   p (K, 2)"""
    fixed = array_module(G).zeros_like(params["p"])
    fixed[:, 0] = 1
    A, back_head = head_layer({"p": params["p"], "q": fixed}, G)

    def back(dA):
        dG, gradients = back_head(dA)
        return dG, {"p": gradients["p"]}

    return A, back


def scale_blocks(omega, G):
    """A = I + C ⊙ G, where C holds a scalar for each block of G.   omega (K, 2, 2), G (K, B, D, D)

    Diagonal P = diag(p_x, ..., p_x, p_y) and Q of that kind do that, with ω_xy = p_x q_y and so on:

        x ← x + ω_xx S x + ω_xy α y,   y ← y + ω_yx ⟨α, x⟩ + ω_yy λ y,   G = [S α; α.T λ]

    C = M @ ω @ M.T with the rows (1, 0) for x and (0, 1) for y in M, so
    dω = M.T @ (Σ_B dA ⊙ G) @ M, and dG = C ⊙ dA.
    """
    kinds = [0] * (G.shape[-1] - 1) + [1]  # of a token's numbers: x or y
    M = constant(np.eye(2)[kinds], array_module(G), G.dtype)  # (D, 2)
    C = product(product(M, omega), M.T)[:, None]

    def back(dA):
        return product(product(M.T, (dA * G).sum(axis=1)), M), C * dA

    return identity(G) + C * G, back


def by_gram(layer, params, G):
    """The weights ŵ (K, B, d) that the examples of each sequence imply: the answer is ⟨ŵ, x_t⟩.

    layer: one of the functions above, params: its parameters, a dict a layer; G (K, B, D, D).

    With r_L = (0, ..., 0, 1) and r_l = A_l.T @ r_{l+1}: ŵ = -r_0 without its last number. Upwards
    through r: dA_l = r_{l+1} @ dr_l.T, dr_{l+1} = A_l @ dr_l. Downwards through
    G_{l+1} = A_l @ G_l @ A_l.T: dA_l gains (dG_{l+1} + dG_{l+1}.T) @ A_l @ G_l, and dG_l is
    A_l.T @ dG_{l+1} @ A_l beside the layer's own.
    """
    xp, last = array_module(G), len(params) - 1
    As, AGs, backs = [], [], []
    for l, own in enumerate(params):
        A, back_layer = layer(own, G)
        As.append(A)
        backs.append(back_layer)
        if l < last:
            AGs.append(product(A, G))
            G = product(AGs[l], transposed(A))
    r = [None] * last + [None, xp.zeros((*A.shape[:-1], 1), A.dtype)]  # columns
    r[-1][..., -1, 0] = 1
    for l in reversed(range(len(As))):
        r[l] = product(transposed(As[l]), r[l + 1])

    def back(dw):
        dr = xp.zeros_like(r[0])
        dr[..., :-1, :] = -dw[..., None]
        dAs = []
        for l, A in enumerate(As):
            dAs.append(r[l + 1] * transposed(dr))
            dr = product(A, dr)
        gradients = [None] * len(As)
        dG, gradients[last] = backs[last](dAs[last])
        for l in reversed(range(last)):
            dA = dAs[l] + product(dG + transposed(dG), AGs[l])
            dG_layer, gradients[l] = backs[l](dA)
            dG = product(product(transposed(As[l]), dG), As[l]) + dG_layer
        return gradients, dG

    return -r[0][..., :-1, 0], back


def by_tokens(layer, params, E):
    """The answers ŷ (K, B) to the last tokens of E (K, B, n + 1, D), token by token.

    Tokens are rows, E ← E @ A.T: dE = dE' @ A and dA = dE'.T @ E; and e_j gains
    (dG + dG.T) @ e_j / n.
    """
    n = E.shape[-2] - 1
    Es, As, backs = [E], [], []
    for own in params:
        examples = E[..., :n, :]
        A, back_layer = layer(own, transposed(examples) @ examples / n)
        E = E @ transposed(A)
        Es.append(E)
        As.append(A)
        backs.append(back_layer)

    def back(dy):
        dE = array_module(E).zeros_like(E)
        dE[..., -1, -1] = -dy
        gradients = [None] * len(As)
        for l in reversed(range(len(As))):
            dG, gradients[l] = backs[l](transposed(dE) @ Es[l])
            dE = dE @ As[l]
            dE[..., :n, :] += Es[l][..., :n, :] @ (dG + transposed(dG)) / n
        return gradients, dE

    return -E[..., -1, -1], back


def product(a, b):
    """a @ b of many small matrices, whose leading axes are broadcast."""
    xp, lead = array_module(a), np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return matmul(*(xp.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b)))


def identity(G):
    return constant(np.eye(G.shape[-1]), array_module(G), G.dtype)


def transposed(x):
    return x.swapaxes(-1, -2)


# form -> its layer
FORMS = {"full": full_layer, "free": free_layer, "head": head_layer, "gd": gd_layer}


class InContextRegressor(Model):
    """K models of one form. A batch holds grams (K, B, D, D) and targets (K, B, d), the weights to
    find; `predict` reads tokens x (K, B, n + 1, D). 1 in the place of K is for all models.

    Parameters have the axes (K, L, ...). Every layer starts near one step of gradient descent,
    ω_yx = -0.3, which suits an x and y of variance 1.
    """

    def __init__(self, form, layers, dims=10, models=1):
        self.form, self.layers, self.dims, self.models = form, layers, dims, models
        self.layer = FORMS[form]

    def init(self, rng):
        def near(start, noise):
            start = np.asarray(start)
            return start + noise * rng.normal(size=(self.models, self.layers, *start.shape))

        if self.form == "full":
            x, y = [1.0] * self.dims + [0.0], [0.0] * self.dims + [1.0]
            return {"P": near(-0.5 * np.diag(y), 0.02), "Q": near(0.6 * np.diag(x), 0.02)}
        if self.form == "free":
            return {"omega": near([[0, 0], [-0.3, 0]], 0.05)}
        if self.form == "head":
            return {"p": near([0, -0.5], 0.1), "q": near([0.6, 0], 0.1)}
        return {"p": near([0, -0.3], 0.05)}

    def count_targets(self, batch):
        """Sequences of each model."""
        return batch["targets"].shape[1]

    def loss(self, params, batch, total):
        """½ |ŵ - target|², the mean over sequences and the sum over models."""
        w, back_stack = by_gram(self.layer, self.by_layer(params), batch["grams"])
        dw = (w - batch["targets"]) / total
        value = total * (dw * dw).sum() / 2

        def back(grads):
            gradients, _ = back_stack(dw)
            for l, own in enumerate(gradients):
                for name, gradient in own.items():
                    add_into(grads[name][:, l], gradient)

        return value, back

    def weights(self, params, grams):
        """ŵ (K, B, d) of G (K, B, D, D)."""
        return by_gram(self.layer, self.by_layer(params), grams)[0]

    def predict(self, params, batch):
        """ŷ (K, B), the answers to the last tokens of x (K, B, n + 1, D)."""
        return by_tokens(self.layer, self.by_layer(params), batch["x"])[0]

    def by_layer(self, params):
        return [{k: a[:, l] for k, a in params.items()} for l in range(self.layers)]
