"""A causal language model: a distribution over the next token, after each token of a text.

    x₀ = E[ids] ⊙ (P[t] + 2)       or E[ids] + P[t] where all layers are attention
    x_l = block_l(x_{l-1})         L post-norm blocks (minisum.models.blocks)
    scores = LN(x_L) @ W.T + b     one for each word of the vocabulary

Source: P. Ekin, "Summation-based transformers", the released causal.py. With cumulative summation
in every block the model remembers a text of any length in L·d numbers.
"""

import math

import numpy as np

from minisum.backend import add_into, array_module
from minisum.errors import UserError
from minisum.models import blocks
from minisum.models.base import Model, through_blocks
from minisum.models.documents import Documents
from minisum.ops import (
    add_positions,
    embed,
    layer_norm,
    linear,
    linear_cross_entropy,
    modulate,
)
from minisum.ops.losses import score_targets

POSITION_BIAS = 2.0
POSITIONS = ("multiply", "add", "none")


class LanguageModel(Model):
    """vocab V, width d, layers a pattern or list of names, max_len the windows trained on.

    positions: "multiply", "add" or "none"; by default as published, "add" if every layer is
    attention, else "multiply". d_ff: width of the token networks, d by default. tied: the scores
    are products with the embedding, LN(x) / √d @ E.T + b, instead of with a W of their own.

    sum_scale: "length" divides the sums by max_len, "none" is as published. Both can say the same,
    since the factor could stand in Wo, but they do not learn alike: a sum of n terms is n times as
    large, and so is the effect of each of Adam's steps on Wo. Undivided it soon drowns the token
    itself, x + Σ u @ Wo.T, and the model knows little but how frequent each word is.

    A batch holds ids (B, n) and targets (B, n), -1 where no target counts. Padding stands on the
    right, where nothing that counts can see it. With starts (B, n), True where a document begins,
    memory and positions start anew there.
    """

    def __init__(
        self,
        vocab,
        width,
        layers,
        max_len,
        heads=8,
        d_ff=None,
        positions=None,
        tied=False,
        sum_scale="length",
    ):
        names = blocks.parse_pattern(layers) if isinstance(layers, str) else list(layers)
        if positions is None:
            positions = "add" if set(names) == {"attention"} else "multiply"
        if positions not in POSITIONS:
            raise UserError(f"positions {positions!r}: choose one of {', '.join(POSITIONS)}")
        self.vocab, self.width, self.max_len = vocab, width, max_len
        self.positions, self.tied = positions, tied
        self.blocks = [
            blocks.build(name, width, heads, max_len, d_ff or width, sum_scale) for name in names
        ]

    def init(self, rng):
        d = self.width
        arrays = {"embedding": rng.normal(0.0, 1.0, (self.vocab, d))}
        if self.positions != "none":
            arrays["positions"] = rng.normal(0.0, 1.0, (self.max_len, d))
        for i, block in enumerate(self.blocks):
            arrays |= {f"blocks.{i}.{name}": a for name, a in block.init(rng).items()}
        arrays |= {"norm.gain": np.ones(d), "norm.bias": np.zeros(d)}
        head = blocks.linear_init(rng, "", self.vocab, d)
        if self.tied:
            del head["W"]
        return arrays | {f"head.{name}": a for name, a in head.items()}

    def count_targets(self, batch):
        return int((batch["targets"] >= 0).sum())

    def activation_size(self, batch):
        # Larger shards would be faster by some percent, since every shard walks over the head's
        # whole gradient, and would need more memory than a whole batch elsewhere.
        return batch["ids"].shape[1] * self.width

    def loss(self, params, batch, total):
        x, back_hidden = self._hidden(params, batch)
        W, scale = self._head(params)
        loss, back_loss = linear_cross_entropy(
            x * scale, W, params["head.b"], batch["targets"], total=total
        )

        def back(grads):
            dx, dW, db, _ = back_loss(1.0)
            grads["embedding" if self.tied else "head.W"] += dW
            grads["head.b"] += db
            back_hidden(dx * scale, grads)

        return loss, back

    def predict(self, params, batch):
        """For each target, (B, n, 2): its surprise in nats, and 1 if it was the likeliest token."""
        x, _ = self._hidden(params, batch)
        W, scale = self._head(params)
        return score_targets(x * scale, W, params["head.b"], batch["targets"])

    def step(self, params, ids, state=None, every=False):
        """Read the next ids (B, n), any number: (scores, state).

        scores (B, V) say what comes after the last of them, or (B, n, V) after each with `every`.
        state, None before the first token, is the number of tokens read, each block's own state and
        the average position once that is needed; its size does not depend on the number of tokens,
        attention's apart. Reading a text in any pieces gives the same scores as reading it whole.

        Tokens past `max_len` stand nowhere in particular: their position is the average of all. And
        running sums are shrunk to the size that they have in training (see Block.step).
        """
        read, memories, average = (0, [None] * len(self.blocks), None) if state is None else state
        x, _ = embed(ids, params["embedding"])
        if self.positions != "none":
            places, average = self._places(params["positions"], read, ids.shape[1], average)
            x, _ = self._place(x, places)
        new = []
        for i, (block, memory) in enumerate(zip(self.blocks, memories, strict=True)):
            x, memory = block.step(params.group(f"blocks.{i}"), x, memory, read)
            new.append(memory)
        x, _ = layer_norm(x if every else x[:, -1], params["norm.gain"], params["norm.bias"])
        W, scale = self._head(params)
        scores, _ = linear(x * scale, W, params["head.b"])
        return scores, (read + ids.shape[1], new, average)

    def _places(self, positions, read, count, average):
        """Positions (count, d) of the tokens after the first `read`, and the average if needed."""
        trained = positions[read : read + count]
        if len(trained) == count:
            return trained, average
        xp = array_module(positions)
        if average is None:
            average = positions.mean(axis=0, keepdims=True)
        beyond = xp.broadcast_to(average, (count - len(trained), self.width))
        return xp.concatenate([trained, beyond]), average

    def layers(self, params, ids):
        """The vectors (B, n, d) of ids (B, n) after the input and after each block, unnormed."""
        x, _ = self._input(params, ids, None)
        outputs = [x]
        for i, block in enumerate(self.blocks):
            x, _ = block(params.group(f"blocks.{i}"), x)
            outputs.append(x)
        return outputs

    def _hidden(self, params, batch):
        """The last layer's vectors (B, n, d), normed; back(dx, grads)."""
        ids = batch["ids"]
        documents = Documents(batch["starts"]) if "starts" in batch else None
        x, back_input = self._input(params, ids, documents)
        x, back_blocks = through_blocks(self.blocks, params, x, documents)

        def back(dx, grads):
            back_input(back_blocks(dx, grads), grads)

        return x, back

    def _input(self, params, ids, documents):
        """x₀ (B, n, d); back(dx, grads)."""
        x, back_embed = embed(ids, params["embedding"])
        if self.positions == "none":
            return x, lambda dx, grads: back_embed(dx)[1].add_to(grads["embedding"])
        if documents is not None:
            x, back_apart = documents.apart(x)
        n = x.shape[1]
        if n > self.max_len:
            raise UserError(f"{n} tokens at once, but the model has {self.max_len} positions")
        x, back_place = self._place(x, params["positions"][:n])
        if documents is not None:
            x, back_together = documents.together(x, ids.shape)

        def back(dx, grads):
            if documents is not None:
                dx = back_together(dx)
            dx, dpositions = back_place(dx)
            add_into(grads["positions"][:n], dpositions)
            if documents is not None:
                dx = back_apart(dx)
            back_embed(dx)[1].add_to(grads["embedding"])

        return x, back

    def _place(self, x, positions):
        if self.positions == "add":
            return add_positions(x, positions)
        return modulate(x, positions, POSITION_BIAS)

    def _head(self, params):
        """The words' vectors and what tokens are multiplied by first.

        A normed token has length √d and so have the embedding's rows: the tied products would
        start out √d times too large.
        """
        if self.tied:
            return params["embedding"], 1 / math.sqrt(self.width)
        return params["head.W"], 1.0
