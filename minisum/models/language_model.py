"""A causal language model: a distribution over the next token, after each token of a text.

    x₀ = E[ids] ⊙ (P[t] + 2)       or E[ids] + P[t] where all layers are attention
    x_l = block_l(x_{l-1})         L blocks, the norm after (minisum.models.blocks)
    scores = LN(x_L) @ W.T + b     one for each word of the vocabulary

Source: P. Ekin, "Summation-based transformers", the released causal.py. With cumulative summation
in every block the model remembers a text of any length in L·d numbers.
"""

import math

from minisum import init, mixers
from minisum.backend import array_module
from minisum.documents import Documents
from minisum.errors import require_known
from minisum.layers import norm_layer, position_layer
from minisum.models.base import Model
from minisum.models.blocks import Block, Stack
from minisum.ops import embed, gelu, linear, linear_cross_entropy, relu, silu
from minisum.ops.losses import score_targets
from minisum.params import add

POSITION_OFFSET = 2.0
POSITIONS = ("multiply", "add", "none")
SUM_SCALES = ("length", "none")
NORMS, FFNS = ("after", "before", "rms"), ("mlp", "swiglu")


class LanguageModel(Model):
    """vocab V, width d, layers a pattern or list of names, max_len the windows trained on.

    positions: "multiply", "add" or "none"; by default as published, "add" if every layer is
    attention, else "multiply", by P + position_offset. d_ff: width of the token networks, d by
    default. tied: the scores are products with the embedding, LN(x) / √d @ E.T + b, instead of with
    a W of their own. norm, ffn: of all blocks, "after", "before" or "rms", and "mlp" or "swiglu";
    "rms" with "swiglu" is the block of today's models.

    sum_scale: "length" divides the sums by max_len, "none" is as published. Both can represent the
    same functions, since Wo could hold the factor, but they train differently: a sum of n terms is
    n times as large, and so is the effect of each of Adam's steps on Wo. Undivided, the sum soon
    dominates the token in x + Σ u @ Wo.T, and the model learns little but word frequencies.

    A batch holds ids (B, n) and targets (B, n), -1 where no target counts. Padding is on the right,
    where no real token sees it. With starts (B, n), True where a document begins, memory and
    positions restart there.
    """

    def __init__(
        self, vocab, width, layers, max_len, heads=8, d_ff=None, positions=None, tied=False,
        sum_scale="length", norm="after", ffn="mlp", position_offset=POSITION_OFFSET,
    ):  # fmt: skip
        names = mixers.parse_pattern(layers) if isinstance(layers, str) else layers
        if positions is None:
            positions = "add" if set(names) == {"attention"} else "multiply"
        require_known("positions", positions, POSITIONS)
        self.vocab, self.width, self.max_len = vocab, width, max_len
        self.positions, self.position_offset, self.tied = positions, position_offset, tied
        # A normed token has length √d and so have the embedding's rows: their products, the tied
        # scores, would start out √d times too large.
        self.score_scale = 1 / math.sqrt(width) if tied else 1.0
        sizes = (width, heads, max_len, d_ff or width, sum_scale, norm, ffn)
        blocks = [causal_block(name, *sizes) for name in names]
        longest = None if positions == "none" else max_len
        self.stack = Stack(blocks, width, longest, positions, position_offset, norm=norm)

    def init(self, rng):
        embedding = rng.normal(0.0, 1.0, (self.vocab, self.width))
        stack = self.stack.init(rng)
        head = init.linear(rng, self.vocab, self.width)
        if self.tied:
            del head["W"]
        return {"embedding": embedding} | stack | {"head": head}

    def count_targets(self, batch):
        return int((batch["targets"] >= 0).sum())

    def loss(self, params, batch, total):
        ids = batch["ids"]
        documents = Documents(batch["starts"]) if "starts" in batch else None
        x, back_embed = embed(ids, params["embedding"])  # (B, n, d)
        x, back_stack = self.stack(params, x, documents=documents)
        W, b = params["embedding"] if self.tied else params["head"]["W"], params["head"]["b"]
        scale, targets = self.score_scale, batch["targets"]
        loss, back_loss = linear_cross_entropy(x * scale, W, b, targets, total=total)

        def back(grads):
            dx, dW, db, _ = back_loss(1.0)
            add(grads, {"embedding": dW} if self.tied else {"head": {"W": dW}})
            add(grads, {"head": {"b": db}})
            dx = back_stack(dx * scale, grads)
            add(grads, {"embedding": back_embed(dx)[1]})

        return loss, back

    def predict(self, params, batch):
        """For each target, (B, n, 2): its nll in nats, and 1 if it was the likeliest token."""
        documents = Documents(batch["starts"]) if "starts" in batch else None
        x, _ = embed(batch["ids"], params["embedding"])
        x, _ = self.stack(params, x, documents=documents)
        W, b = params["embedding"] if self.tied else params["head"]["W"], params["head"]["b"]
        return score_targets(x * self.score_scale, W, b, batch["targets"])

    def layers(self, params, ids):
        """The vectors (B, n, d) of ids (B, n) after the input and after each block, unnormed."""
        x, _ = embed(ids, params["embedding"])
        x, _ = position_layer(params, x, self.positions, self.position_offset)
        outputs = [x]
        for i, block in enumerate(self.stack.blocks):
            x, _ = block(params["blocks"][str(i)], x)
            outputs.append(x)
        return outputs

    def step(self, params, ids, state=None, every=False):
        """Read the next ids (B, n), any number: (scores, state).

        scores (B, V) are those of the token after the last of them, or (B, n, V) after each with
        `every`. state, None before the first token, is the number of tokens read, each block's own
        state and the average position once that is needed; its size does not depend on the number
        of tokens, attention's apart. A text read in parts gets the same scores as read whole.

        Tokens past `max_len` have no position of their own and get the mean of all positions.
        Running sums are scaled down to their size in training (see Block.step).
        """
        blocks = self.stack.blocks
        read, states, average = (0, [None] * len(blocks), None) if state is None else state
        x, _ = embed(ids, params["embedding"])
        if self.positions != "none":
            positions, average = self._positions(params["positions"], read, ids.shape[1], average)
            x, _ = position_layer({"positions": positions}, x, self.positions, self.position_offset)
        after = []
        for i, (block, block_state) in enumerate(zip(blocks, states, strict=True)):
            x, block_state = block.step(params["blocks"][str(i)], x, block_state, read)
            after.append(block_state)
        x, _ = norm_layer(params["norm"], x if every else x[:, -1])
        W, b = params["embedding"] if self.tied else params["head"]["W"], params["head"]["b"]
        scores, _ = linear(x * self.score_scale, W, b)
        return scores, (read + ids.shape[1], after, average)

    def _positions(self, table, read, count, average):
        """Positions (count, d) of the tokens after the first `read`, and the average if needed."""
        trained = table[read : read + count]
        if len(trained) == count:
            return trained, average
        xp = array_module(table)
        if average is None:
            average = table.mean(axis=0, keepdims=True)
        beyond = xp.broadcast_to(average, (count - len(trained), self.width))
        return xp.concatenate([trained, beyond]), average


def causal_block(name, width, heads, max_len, d_ff, sum_scale="none", norm="after", ffn="mlp"):
    """The block around the causal mixer called `name`, with the activation published with it.

    sum_scale "length" multiplies the output of a summation by 1/max_len, "none" by 1.
    """
    for what, value, known in (
        ("sum scale", sum_scale, SUM_SCALES), ("norm", norm, NORMS), ("ffn", ffn, FFNS),
    ):  # fmt: skip
        require_known(what, value, known)
    kind, _ = mixers.parse_name(name)
    # Attention is drawn like the model's other linear maps, which is how it was published.
    options = {"draw": "uniform"} if kind in ("attention", "window") else {}
    mixer = mixers.build(name, width, heads, max_len, causal=True, **options)
    scale = 1 / max_len if sum_scale == "length" else 1.0
    scaled = {"scale": scale, "longest": max_len} if kind == "summation" else {}
    activation = silu if ffn == "swiglu" else gelu if kind == "projection" else relu
    return Block(mixer, d_ff, activation, norm, gate=ffn == "swiglu", **scaled)
