"""Text and numbers to one number: summation with one shared channel, and what it is measured by.

Everything that is known of an example ends as vectors of one width, and what is known is added up:
the words of the text by direct summation, the numbers by a small network each.

    text     t = relu(Σ_s relu((E[ids[s]] ⊙ (P[s] + 1)) @ W.T) @ Wt.T + bt)
    numbers  u = two dense layers of Σ_i tower_i(number_i), a tower being two dense layers
    both     y = linear(dropout(dense₆₄(dense(t + u))))

Source: P. Ekin, "Summation-based transformers", the released multimodal.py. Its rival joins the
vectors end to end instead (`ConcatenationRegressor`); ridge regression on the numbers shows what
the text is worth, and the same model without numbers what they are worth.
"""

import numpy as np

from minisum.backend import add_into, array_module
from minisum.errors import UserError
from minisum.mixers.attention import Attention
from minisum.models.base import Model, with_padding, without_padding
from minisum.models.classifier import POOLING, SummationClassifier
from minisum.models.ridge import RidgeRegressor
from minisum.models.towers import dense, init_dense, init_towers, towers
from minisum.ops import (
    add_positions,
    dropout,
    embed,
    layer_norm,
    linear,
    mean_squared_error,
    mean_tokens,
)
from minisum.ops.dropout import draw_keep

HEAD_WIDTH = 64
NORM_EPS = 1e-3


class Regressor(Model):
    """A joint vector of the modalities, two dense layers, dropout, one number; squared error.

    vocab V, width d, columns k the numeric columns, inputs f the numbers that describe a cell (its
    standardised value and, with f = 2, whether it is missing), max_len the longest text in tokens.
    While training, `dropout` forgets features and `token_dropout` whole tokens.

    A batch holds ids (B, n) integer, mask (B, n) bool, numbers (B, k, f), targets (B,). Subclasses
    define `init_joint`, `joint` and `joint_width`.
    """

    default_pooling = "sum"

    def __init__(
        self, vocab, width, columns, max_len, inputs=1, pooling=None, dropout=0.0, token_dropout=0.0
    ):
        self.vocab, self.width, self.max_len = vocab, width, max_len
        self.columns, self.inputs = columns, inputs
        self.power = POOLING[pooling or self.default_pooling]
        self.dropout, self.token_dropout = dropout, token_dropout

    @property
    def joint_width(self):
        return self.width

    def init(self, rng):
        """First values, as the released code draws them."""
        return {
            **self.init_joint(rng),
            **init_dense(rng, "fuse", self.width, self.joint_width),
            **init_dense(rng, "narrow", HEAD_WIDTH, self.width),
            **init_dense(rng, "head", 1, HEAD_WIDTH),
        }

    def noise(self, rng, batch):
        """What a training batch forgets: survivors of dropout, and a mask with fewer tokens."""
        noise = {}
        if self.dropout:
            noise["keep"] = draw_keep(rng, (len(batch["ids"]), HEAD_WIDTH), self.dropout)
        if self.token_dropout:
            kept = draw_keep(rng, batch["ids"].shape, self.token_dropout)
            noise["mask"] = kept & batch["mask"]
        return noise

    def count_targets(self, batch):
        return len(batch["targets"])

    def activation_size(self, batch):
        """What shards are sized by: an eighth of the numbers in one layer's array for one example.

        The towers and the head read all their weights for every shard; larger ones share that.
        """
        return batch["ids"].shape[1] * self.width // 8

    def trim_padding(self, batch):
        return without_padding(batch)

    def pad_to_bucket(self, batch):
        return with_padding(batch, self.max_len)

    def loss(self, params, batch, total):
        y, back_values = self._values(params, batch, batch.get("keep"))
        loss, back_loss = mean_squared_error(y, batch["targets"], total=total)

        def back(grads):
            dy, _ = back_loss(1.0)
            back_values(dy, grads)

        return loss, back

    def predict(self, params, batch):
        """The predicted targets (B,), standardised like those it was trained on."""
        return self._values(params, batch)[0]

    def _values(self, params, batch, keep=None):
        joint, back_joint = self.joint(params, batch)
        fused, back_fuse = dense(params, joint, "fuse")
        narrow, back_narrow = dense(params, fused, "narrow")
        if keep is not None:
            narrow, back_dropout = dropout(narrow, keep, self.dropout)
        y, back_head = linear(narrow, params["head.W"], params["head.b"])

        def back(dy, grads):
            dnarrow, dW, db = back_head(dy[:, None])
            grads["head.W"] += dW
            grads["head.b"] += db
            if keep is not None:
                dnarrow, _ = back_dropout(dnarrow)
            back_joint(back_fuse(back_narrow(dnarrow, grads), grads), grads)

        return y[:, 0], back


class WordsRegressor(Regressor):
    """The text alone, by the classifier's direct summation: the model without numbers. O(n d²)."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        pooling = options.get("pooling")
        self.reader = SummationClassifier(self.vocab, self.width, 1, self.max_len, pooling)

    def init_joint(self, rng):
        d = self.width
        embedding = {"embedding": rng.uniform(-0.05, 0.05, (self.vocab, d))}
        return embedding | self.reader.init_features(rng) | init_dense(rng, "text", d, d)

    def joint(self, params, batch):
        total, back_total = self.reader.features(params, batch["ids"], batch["mask"])
        text, back_text = dense(params, total, "text")

        def back(dtext, grads):
            back_total(back_text(dtext, grads), grads)

        return text, back


class SummationRegressor(WordsRegressor):
    """One shared channel: the text's vector plus the numbers' vector. O(n d²)."""

    def init_joint(self, rng):
        d = self.width
        return {
            **super().init_joint(rng),
            **init_towers(rng, self.columns, self.inputs, d),
            **init_dense(rng, "numbers1", d, d),
            **init_dense(rng, "numbers2", d, d),
        }

    def joint(self, params, batch):
        text, back_text = super().joint(params, batch)
        vectors, back_towers = towers(params, batch["numbers"])
        first, back_first = dense(params, sum(vectors[1:], vectors[0]), "numbers1")
        numbers, back_second = dense(params, first, "numbers2")

        def back(dsum, grads):
            back_text(dsum, grads)
            dvector = back_first(back_second(dsum, grads), grads)
            back_towers([dvector] * len(vectors), grads)

        return text + numbers, back


class ConcatenationRegressor(Regressor):
    """The published rival: an attention layer over the text, and all vectors end to end. O(n² d).

    text = mean_s LN(x_s + attention(x)_s), x = E[ids] + P; joint = [text, tower₁, ..., tower_k].
    """

    default_pooling = "mean"

    def __init__(self, *sizes, heads=4, **options):
        super().__init__(*sizes, **options)
        self.mixer = Attention(self.width, heads, self.max_len)

    @property
    def joint_width(self):
        return self.width * (1 + self.columns)

    def init_joint(self, rng):
        d = self.width
        return {
            "embedding": rng.uniform(-0.05, 0.05, (self.vocab, d)),
            "positions": rng.normal(0.0, 0.02, (self.max_len, d)),
            **{f"mixer.{name}": a for name, a in self.mixer.init(rng).items()},
            "norm.gain": np.ones(d),
            "norm.bias": np.zeros(d),
            **init_towers(rng, self.columns, self.inputs, d),
        }

    def joint(self, params, batch):
        text, back_text = self._text(params, batch["ids"], batch["mask"])
        vectors, back_towers = towers(params, batch["numbers"])
        d = self.width

        def back(djoint, grads):
            pieces = [djoint[:, i * d : (i + 1) * d] for i in range(1 + self.columns)]
            back_text(pieces[0], grads)
            back_towers(pieces[1:], grads)

        concatenate = array_module(text).concatenate
        return concatenate([text, *vectors], axis=1), back

    def _text(self, params, ids, mask):
        n = ids.shape[1]
        x, back_embed = embed(ids, params["embedding"])
        placed, back_positions = add_positions(x, params["positions"][:n])
        mixed, back_mixer = self.mixer(params.group("mixer"), placed, mask)
        gain, bias = params["norm.gain"], params["norm.bias"]
        normed, back_norm = layer_norm(placed + mixed, gain, bias, NORM_EPS)
        text, back_pool = mean_tokens(normed, mask, self.power)

        def back(dtext, grads):
            dnormed, _ = back_pool(dtext)
            dsum, dgain, dbias = back_norm(dnormed)
            dthrough, dparams = back_mixer(dsum)
            dx, dpositions = back_positions(dsum + dthrough)
            grads["norm.gain"] += dgain
            grads["norm.bias"] += dbias
            for name, gradient in dparams.items():
                grads[f"mixer.{name}"] += gradient
            add_into(grads["positions"][:n], dpositions)
            back_embed(dx)[1].add_to(grads["embedding"])

        return text, back


MODELS = {
    "summation": SummationRegressor,
    "attention": ConcatenationRegressor,
    "words": WordsRegressor,
}
MIXERS = (*MODELS, "ridge")


def build(mixer, vocab, width, columns, max_len, inputs=1, heads=4, solution=None, **options):
    """The model called `mixer`, one of MIXERS. options: pooling, dropout, token_dropout.

    solution: the closed form's (w, b), which is all that "ridge" needs; see `solve_ridge`.
    """
    if mixer == "ridge":
        return RidgeRegressor(columns, inputs, solution)
    if mixer not in MODELS:
        raise UserError(f"unknown mixer {mixer!r}: choose one of {', '.join(MIXERS)}")
    if mixer == "attention":
        options |= {"heads": heads}
    return MODELS[mixer](vocab, width, columns, max_len, inputs=inputs, **options)
