"""Text classifiers of one layer: direct summation, its attention rival, and no mixing at all.

The three differ in how n token vectors become one vector of features; a linear head then gives a
score to each class. Source: P. Ekin, "Summation-based transformers", the released classifier.
"""

import numpy as np

from minisum import init
from minisum.backend import add_rows
from minisum.errors import UserError
from minisum.mixers.attention import Attention
from minisum.ops import (
    add_positions,
    cross_entropy,
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


class Classifier:
    """Features of a text, dropout, a linear head, cross-entropy. Subclasses define `features`.

    vocab V, width d, classes C, max_len the longest text in tokens. masked=False adds the padding
    to the pool as the published code does. A batch holds ids (B, n) and targets (B,) integer,
    mask (B, n) bool.
    """

    default_pooling = "mean"

    def __init__(
        self, vocab, width, classes, max_len, pooling=None, masked=True, dropout=0.0, heads=1
    ):
        self.vocab, self.width, self.classes, self.max_len = vocab, width, classes, max_len
        self.power = POOLING[pooling or self.default_pooling]
        self.masked, self.dropout, self.heads = masked, dropout, heads

    def init(self, rng):
        """First values, as the released code draws them."""
        return {
            "embedding": rng.uniform(-0.05, 0.05, (self.vocab, self.width)),
            **self.init_features(rng),
            "head.W": init.glorot_uniform(rng, self.classes, self.width),
            "head.b": np.zeros(self.classes),
        }

    def noise(self, rng, batch):
        """Dropout's survivors for a batch: {} without dropout."""
        if not self.dropout:
            return {}
        return {"keep": draw_keep(rng, (len(batch["ids"]), self.width), self.dropout)}

    def weight(self, batch):
        return len(batch["targets"])

    def loss(self, params, batch, total):
        logits, back_logits = self._logits(params, batch)
        loss, back_loss = cross_entropy(logits, batch["targets"], total=total)

        def back(grads):
            dlogits, _ = back_loss(1.0)
            back_logits(dlogits, grads)

        return loss, back

    def predict(self, params, batch):
        """Scores (B, C); their softmax is the probability of each class."""
        logits, _ = self._logits(params, {"ids": batch["ids"], "mask": batch["mask"]})
        return logits

    def _logits(self, params, batch):
        mask = batch["mask"] if self.masked else None
        features, back_features = self.features(params, batch["ids"], mask)
        if "keep" in batch:
            features, back_dropout = dropout(features, batch["keep"], self.dropout)
        logits, back_head = linear(features, params["head.W"], params["head.b"])

        def back(dlogits, grads):
            dfeatures, dW, db = back_head(dlogits)
            grads["head.W"] += dW
            grads["head.b"] += db
            if "keep" in batch:
                dfeatures, _ = back_dropout(dfeatures)
            back_features(dfeatures, grads)

        return logits, back


class SummationClassifier(Classifier):
    """features = Σ_t relu(W (E[id_t] ⊙ (P[t] + 1))): each token adds what it has to say. O(n d²)."""

    default_pooling = "sum"

    def init_features(self, rng):
        return {
            "positions": rng.normal(0.0, 0.02, (self.max_len, self.width)),
            "project.W": init.glorot_uniform(rng, self.width, self.width),
        }

    def features(self, params, ids, mask):
        n = ids.shape[1]
        x, _ = embed(ids, params["embedding"])
        placed, back_modulate = modulate(x, params["positions"][:n], POSITION_BIAS)
        projected, back_project = linear(placed, params["project.W"])
        said, back_relu = relu(projected)
        features, back_pool = mean_tokens(said, mask, self.power)

        def back(dfeatures, grads):
            dsaid, _ = back_pool(dfeatures)
            dplaced, dW = back_project(back_relu(dsaid))
            dx, dpositions = back_modulate(dplaced)
            grads["project.W"] += dW
            grads["positions"][:n] += dpositions
            add_rows(grads["embedding"], ids, dx)

        return features, back


class AttentionClassifier(Classifier):
    """features = mean_t attention(E[id_t] + P[t]): the published rival. O(n² d).

    head_width: d/H by default; the released code gives each head the whole width d.
    """

    def __init__(self, *sizes, heads=4, head_width=None, **options):
        super().__init__(*sizes, heads=heads, **options)
        self.mixer = Attention(self.width, heads, self.max_len, head_width=head_width)

    def init_features(self, rng):
        arrays = {"positions": rng.normal(0.0, 0.02, (self.max_len, self.width))}
        return arrays | {f"mixer.{name}": a for name, a in self.mixer.init(rng).items()}

    def features(self, params, ids, mask):
        n = ids.shape[1]
        x, _ = embed(ids, params["embedding"])
        placed, back_positions = add_positions(x, params["positions"][:n])
        mixed, back_mixer = self.mixer(params.group("mixer"), placed, mask)
        features, back_pool = mean_tokens(mixed, mask, self.power)

        def back(dfeatures, grads):
            dmixed, _ = back_pool(dfeatures)
            dplaced, dparams = back_mixer(dmixed)
            dx, dpositions = back_positions(dplaced)
            for name, gradient in dparams.items():
                grads[f"mixer.{name}"] += gradient
            grads["positions"][:n] += dpositions
            add_rows(grads["embedding"], ids, dx)

        return features, back


class MeanEmbeddingClassifier(Classifier):
    """features = mean_t E[id_t]: a bag of words, no order and no mixing. The row that both must beat.

    Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification".
    """

    def init_features(self, rng):
        return {}

    def features(self, params, ids, mask):
        x, _ = embed(ids, params["embedding"])
        features, back_pool = mean_tokens(x, mask, self.power)

        def back(dfeatures, grads):
            dx, _ = back_pool(dfeatures)
            add_rows(grads["embedding"], ids, dx)

        return features, back


MODELS = {
    "summation": SummationClassifier,
    "attention": AttentionClassifier,
    "mean_embedding": MeanEmbeddingClassifier,
}


def build(mixer, vocab, width, classes, max_len, heads=4, head_width=None, **options):
    """The classifier whose features come from `mixer`. options: pooling, masked, dropout."""
    if mixer not in MODELS:
        raise UserError(f"unknown mixer {mixer!r}: choose one of {', '.join(MODELS)}")
    if mixer == "attention":
        options |= {"heads": heads, "head_width": head_width}
    return MODELS[mixer](vocab, width, classes, max_len, **options)
