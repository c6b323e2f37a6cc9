"""Text classifiers of one layer: direct summation, its attention rival, and no mixing at all.

The three differ in how n token vectors become one vector of features; a linear head then gives a
score to each class. Source: P. Ekin, "Summation-based transformers", the released classifier.
"""

import numpy as np

from minisum import init
from minisum.backend import add_into
from minisum.errors import UserError
from minisum.mixers.attention import Attention
from minisum.models.base import Model, with_padding, without_padding
from minisum.ops import (
    add_positions,
    cross_entropy,
    direct_summation,
    dropout,
    embed,
    linear,
    mean_tokens,
    modulate,
    relu,
)
from minisum.ops.dropout import draw_keep

# Powers of the token count that the sum over tokens is divided by.
POOLING = {"sum": 0.0, "sqrt": 0.5, "mean": 1.0}

POSITION_BIAS = 1.0


class Classifier(Model):
    """Features of a text, dropout, a linear head, cross-entropy. Subclasses define `features`.

    vocab V, width d, classes C, max_len the longest text in tokens. masked=False adds the padding
    to the pool as the published code does. While training, `dropout` forgets features and
    `token_dropout` whole tokens, as if they had not been written. A batch holds ids (B, n) and
    targets (B,) integer, mask (B, n) bool.
    """

    default_pooling = "mean"

    def __init__(
        self,
        vocab,
        width,
        classes,
        max_len,
        pooling=None,
        masked=True,
        dropout=0.0,
        token_dropout=0.0,
    ):
        self.vocab, self.width, self.classes, self.max_len = vocab, width, classes, max_len
        self.power = POOLING[pooling or self.default_pooling]
        self.masked, self.dropout, self.token_dropout = masked, dropout, token_dropout

    def init(self, rng):
        """First values, as the released code draws them."""
        return {
            "embedding": rng.uniform(-0.05, 0.05, (self.vocab, self.width)),
            **self.init_features(rng),
            "head.W": init.glorot_uniform(rng, self.classes, self.width),
            "head.b": np.zeros(self.classes),
        }

    def noise(self, rng, batch):
        """What a training batch forgets: survivors of dropout, and a mask with fewer tokens."""
        noise = {}
        if self.dropout:
            noise["keep"] = draw_keep(rng, (len(batch["ids"]), self.width), self.dropout)
        if self.token_dropout:
            kept = draw_keep(rng, batch["ids"].shape, self.token_dropout)
            noise["mask"] = kept & batch["mask"] if self.masked else kept
        return noise

    def count_targets(self, batch):
        return len(batch["targets"])

    def activation_size(self, batch):
        return batch["ids"].shape[1] * self.width

    def trim_padding(self, batch):
        return without_padding(batch) if self.masked else batch

    def pad_to_bucket(self, batch):
        return with_padding(batch, self.max_len) if self.masked else batch

    def loss(self, params, batch, total):
        mask = batch["mask"] if self.masked or self.token_dropout else None
        logits, back_logits = self._logits(params, batch["ids"], mask, batch.get("keep"))
        loss, back_loss = cross_entropy(logits, batch["targets"], total=total)

        def back(grads):
            dlogits, _ = back_loss(1.0)
            back_logits(dlogits, grads)

        return loss, back

    def predict(self, params, batch):
        """Scores (B, C); their softmax is the probability of each class."""
        logits, _ = self._logits(params, batch["ids"], batch["mask"] if self.masked else None)
        return logits

    def _logits(self, params, ids, mask, keep=None):
        features, back_features = self.features(params, ids, mask)
        if keep is not None:
            features, back_dropout = dropout(features, keep, self.dropout)
        logits, back_head = linear(features, params["head.W"], params["head.b"])

        def back(dlogits, grads):
            dfeatures, dW, db = back_head(dlogits)
            grads["head.W"] += dW
            grads["head.b"] += db
            if keep is not None:
                dfeatures, _ = back_dropout(dfeatures)
            back_features(dfeatures, grads)

        return logits, back


class SummationClassifier(Classifier):
    """features = Σ_t relu((E[ids[t]] ⊙ (P[t] + 1)) @ W.T): each token adds its say. O(n d²)."""

    default_pooling = "sum"

    def init_features(self, rng):
        return {
            "positions": rng.normal(0.0, 0.02, (self.max_len, self.width)),
            "project.W": init.glorot_uniform(rng, self.width, self.width),
        }

    def features(self, params, ids, mask):
        n = ids.shape[1]
        features, back_summation = direct_summation(
            ids,
            params["embedding"],
            params["positions"][:n],
            POSITION_BIAS,
            params["project.W"],
            mask,
            self.power,
        )

        def back(dfeatures, grads):
            _, dtable, dpositions, dW, _ = back_summation(dfeatures)
            dtable.add_to(grads["embedding"])
            grads["project.W"] += dW
            add_into(grads["positions"][:n], dpositions)

        return features, back

    def said(self, params, ids):
        """(B, n, d): what each token adds, before pooling divides the sum."""
        positions = params["positions"][: ids.shape[1]]
        x, _ = embed(ids, params["embedding"])
        placed, _ = modulate(x, positions, POSITION_BIAS)
        projected, _ = linear(placed, params["project.W"])
        return relu(projected)[0]

    def activation_size(self, batch):
        # A quarter of one layer's array: the op works in place, and products like long factors.
        return super().activation_size(batch) // 4


class AttentionClassifier(Classifier):
    """features = mean_t attention(E[ids[t]] + P[t]): the published rival. O(n² d).

    head_width: d/H by default; the released code gives each head the whole width d.
    """

    def __init__(self, *sizes, heads=4, head_width=None, **options):
        super().__init__(*sizes, **options)
        self.mixer = Attention(self.width, heads, self.max_len, head_width=head_width)

    def init_features(self, rng):
        arrays = {"positions": rng.normal(0.0, 0.02, (self.max_len, self.width))}
        return arrays | {f"mixer.{name}": a for name, a in self.mixer.init(rng).items()}

    def features(self, params, ids, mask):
        n = ids.shape[1]
        x, back_embed = embed(ids, params["embedding"])
        placed, back_positions = add_positions(x, params["positions"][:n])
        mixed, back_mixer = self.mixer(params.group("mixer"), placed, mask)
        features, back_pool = mean_tokens(mixed, mask, self.power)

        def back(dfeatures, grads):
            dmixed, _ = back_pool(dfeatures)
            dplaced, dparams = back_mixer(dmixed)
            dx, dpositions = back_positions(dplaced)
            for name, gradient in dparams.items():
                grads[f"mixer.{name}"] += gradient
            add_into(grads["positions"][:n], dpositions)
            back_embed(dx)[1].add_to(grads["embedding"])

        return features, back


class MeanEmbeddingClassifier(Classifier):
    """features = mean_t E[ids[t]]: a bag of words without order or mixing, for the others to beat.

    Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification".
    """

    def init_features(self, rng):
        return {}

    def said(self, params, ids):
        """(B, n, d): what each token adds, before pooling divides the sum."""
        return embed(ids, params["embedding"])[0]

    def features(self, params, ids, mask):
        x, back_embed = embed(ids, params["embedding"])
        features, back_pool = mean_tokens(x, mask, self.power)

        def back(dfeatures, grads):
            dx, _ = back_pool(dfeatures)
            back_embed(dx)[1].add_to(grads["embedding"])

        return features, back


MODELS = {
    "summation": SummationClassifier,
    "attention": AttentionClassifier,
    "mean_embedding": MeanEmbeddingClassifier,
}


def build(mixer, vocab, width, classes, max_len, heads=4, head_width=None, **options):
    """The classifier that mixes tokens by `mixer`. options: pooling, masked, (token_)dropout."""
    if mixer not in MODELS:
        raise UserError(f"unknown mixer {mixer!r}: choose one of {', '.join(MODELS)}")
    if mixer == "attention":
        options |= {"heads": heads, "head_width": head_width}
    return MODELS[mixer](vocab, width, classes, max_len, **options)
