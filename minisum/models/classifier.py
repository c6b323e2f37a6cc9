"""Text classifiers of one layer: direct summation, its attention rival, and no mixing at all.

The three differ in how n token vectors become one feature vector; a linear head then gives a score
for each class. Source: P. Ekin, "Summation-based transformers", the released classifier.
"""

import numpy as np

from minisum import init, mixers
from minisum.backend import array_module
from minisum.errors import require_known
from minisum.layers import linear_layer, position_layer
from minisum.models.base import TextModel
from minisum.ops import cross_entropy, direct_summation, dropout, embed, mean_tokens, relu
from minisum.params import add

# Powers of the token count that the sum over tokens is divided by.
POOLING = {"sum": 0.0, "sqrt": 0.5, "mean": 1.0}

POSITION_OFFSET = 1.0
POSITIONS = ("multiply", "add")


class Classifier(TextModel):
    """Features of a text, dropout, a linear head, cross-entropy. Subclasses define `features`.

    vocab V, width d, classes C, max_len the longest text in tokens. masked=False adds the padding
    to the pool as the published code does. positions: "multiply" the tokens by P + position_offset
    or "add" P to them. one_logit: two classes share one logit, whose sigmoid is the second's
    probability. bag_rows: the rows of a bag of words and pairs, which has its own loss and adds to
    the logits, see `minisum.models.bag`. The dropouts and the batch: see `TextModel`.
    """

    default_pooling, default_positions = "mean", "add"

    def __init__(
        self, vocab, width, classes, max_len, pooling=None, masked=True, dropout=0.0,
        token_dropout=0.0, positions=None, position_offset=POSITION_OFFSET, one_logit=False,
        bag_rows=0,
    ):  # fmt: skip
        self.vocab, self.width, self.classes, self.max_len = vocab, width, classes, max_len
        self.power = POOLING[pooling or self.default_pooling]
        self.masked, self.dropout, self.token_dropout = masked, dropout, token_dropout
        self.positions = positions or self.default_positions
        self.position_offset, self.bag_rows = position_offset, bag_rows
        self.outputs = 1 if one_logit and classes == 2 else classes
        self.dropout_width = width
        # Pairs of words, and positions that are added, need the texts as they stand.
        self.packs = self.packs and self.positions == "multiply" and not bag_rows

    def init(self, rng):
        """Initial parameters: embedding and head as Keras draws them, as in the released code."""
        params = {
            "embedding": rng.uniform(-0.05, 0.05, (self.vocab, self.width)),
            **self.init_features(rng),
            "head": init.linear(rng, self.outputs, self.width, "glorot"),
        }
        if self.bag_rows:
            params["bag"] = np.zeros((self.vocab + self.bag_rows, self.outputs))
        return params

    def loss(self, params, batch, total):
        mask = batch["mask"] if self.masked or self.token_dropout else None
        keep = batch.get("keep")
        features, back_features = self.features(params, batch["ids"], mask)  # (B, d)
        if keep is not None:
            features, back_dropout = dropout(features, keep, self.dropout)
        logits, back_head = linear_layer(params["head"], features)  # (B, outputs)
        loss, back_loss = self.cross_entropy(logits, batch, total)
        if self.bag_rows:
            # A loss of its own: in the same one it would learn only what the features leave.
            votes, back_votes = self.votes(params, batch["ids"], mask)
            bag_loss, back_bag_loss = self.cross_entropy(votes, batch, total)
            loss = loss + bag_loss

        def back(grads):
            if self.bag_rows:
                add(grads, {"bag": back_votes(back_bag_loss())})
            dfeatures, dhead = back_head(back_loss())
            add(grads, {"head": dhead})
            if keep is not None:
                dfeatures, _ = back_dropout(dfeatures)
            back_features(dfeatures, grads)

        return loss, back

    def votes(self, params, ids, mask):
        from minisum.models.bag import bag_votes

        return bag_votes(params["bag"], ids, mask, self.vocab)

    def cross_entropy(self, logits, batch, total):
        """Of logits (B, outputs); back() -> dlogits."""
        loss, back = cross_entropy(self.of_classes(logits), batch["targets"], total=total)
        return loss, lambda: back(1.0)[0][:, -self.outputs :]

    def of_classes(self, logits):
        """(B, outputs) -> (B, C)."""
        if self.outputs == self.classes:
            return logits
        # The softmax of [0, z] is [1 - σ(z), σ(z)], its cross-entropy the binary one.
        xp = array_module(logits)
        return xp.concatenate([xp.zeros_like(logits), logits], axis=1)

    def predict(self, params, batch):
        """Logits (B, C); their softmax is the probability of each class."""
        mask = batch["mask"] if self.masked else None
        features, _ = self.features(params, batch["ids"], mask)
        logits, _ = linear_layer(params["head"], features)
        if self.bag_rows:
            logits = logits + self.votes(params, batch["ids"], mask)[0]
        return self.of_classes(logits)

    def init_features(self, rng):
        """Initial values of the arrays that only `features` reads, except the embedding."""
        raise NotImplementedError

    def features(self, params, ids, mask):
        """ids (B, n), mask (B, n) bool or None -> (B, d); back(dfeatures, grads) adds to grads."""
        raise NotImplementedError


class SummationClassifier(Classifier):
    """features = Σ_t relu((E[ids[t]] ⊙ (P[t] + 1)) @ W.T): tokens contribute vectors. O(n d²).

    The offset 1 can be another; with positions="add", E[ids[t]] + P[t] is projected.
    """

    default_pooling, default_positions, packs = "sum", "multiply", True

    def init_features(self, rng):
        return {
            "positions": rng.normal(0.0, 0.02, (self.max_len, self.width)),
            "project": init.linear(rng, self.width, self.width, "glorot", bias=False),
        }

    def features(self, params, ids, mask):
        if self.positions == "add":
            contributions, back_contributions = self.contribute(params, ids)
            y, back_pool = mean_tokens(contributions, mask, self.power)
            return y, lambda dy, grads: back_contributions(back_pool(dy)[0], grads)
        table, positions = params["embedding"], params["positions"][: ids.shape[1]]
        W = params["project"]["W"]
        features, back_summation = direct_summation(
            ids, table, positions, self.position_offset, W, mask, self.power
        )

        def back(dfeatures, grads):
            _, dtable, dpositions, dW, _ = back_summation(dfeatures)
            add(grads, {"embedding": dtable, "positions": dpositions, "project": {"W": dW}})

        return features, back

    def contribute(self, params, ids):
        """(B, n, d), what each token adds before pooling divides the sum; back(dy, grads)."""
        x, back_embed = embed(ids, params["embedding"])
        where = self.positions, self.position_offset, self.places(ids)
        placed, back_place = position_layer(params, x, *where)
        projected, back_project = linear_layer(params["project"], placed)
        y, back_relu = relu(projected)

        def back(dy, grads):
            dplaced, dproject = back_project(back_relu(dy))
            dx, dpositions = back_place(dplaced)
            add(grads, {"project": dproject, "embedding": back_embed(dx)[1]} | dpositions)

        return y, back

    def places(self, ids):
        """Where each token of ids (B, n) stands, (B, n); None where it is 0 to n - 1."""

    def contributions(self, params, ids):
        """(B, n, d): what each token adds, before pooling divides the sum."""
        return self.contribute(params, ids)[0]

    def activation_size(self, batch):
        # The op works in chunks of its own, on some of the tokens, and products like long factors.
        return super().activation_size(batch) // 16


class AttentionClassifier(Classifier):
    """features = mean_t attention(E[ids[t]] + P[t]): attention as published. O(n² d).

    head_width: d/H by default; the released code gives each head the whole width d. draw: see
    `init.attention`; the released code's is "keras".
    """

    def __init__(self, *sizes, heads=4, head_width=None, draw="glorot", **options):
        super().__init__(*sizes, **options)
        attention = {"heads": heads, "head_width": head_width, "draw": draw}
        self.mixer = mixers.build("attention", self.width, max_len=self.max_len, **attention)

    def init_features(self, rng):
        positions = rng.normal(0.0, 0.02, (self.max_len, self.width))
        return {"positions": positions, "mixer": self.mixer.init(rng)}

    def features(self, params, ids, mask):
        x, back_embed = embed(ids, params["embedding"])  # (B, n, d)
        placed, back_positions = position_layer(params, x, self.positions, self.position_offset)
        mixed, back_mixer = self.mixer(params["mixer"], placed, mask)
        features, back_pool = mean_tokens(mixed, mask, self.power)  # (B, d)

        def back(dfeatures, grads):
            dmixed, _ = back_pool(dfeatures)
            dplaced, dmixer = back_mixer(dmixed)
            dx, dpositions = back_positions(dplaced)
            add(grads, {"embedding": back_embed(dx)[1], "mixer": dmixer} | dpositions)

        return features, back


class MeanEmbeddingClassifier(Classifier):
    """features = mean_t E[ids[t]]: a bag of words without order or mixing, as a baseline.

    Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification".
    """

    def init_features(self, rng):
        return {}

    def features(self, params, ids, mask):
        x, back_embed = embed(ids, params["embedding"])
        features, back_pool = mean_tokens(x, mask, self.power)

        def back(dfeatures, grads):
            dx, _ = back_pool(dfeatures)
            add(grads, {"embedding": back_embed(dx)[1]})

        return features, back

    def contributions(self, params, ids):
        """(B, n, d): what each token adds, before pooling divides the sum."""
        return embed(ids, params["embedding"])[0]


MODELS = {
    "summation": SummationClassifier,
    "attention": AttentionClassifier,
    "mean_embedding": MeanEmbeddingClassifier,
}


def build(
    mixer, vocab, width, classes, max_len, heads=4, head_width=None, draw="glorot", **options
):
    """The classifier that mixes tokens by `mixer`. options: those of `Classifier`."""
    require_known("unknown mixer", mixer, MODELS)
    if mixer == "attention":
        options |= {"heads": heads, "head_width": head_width, "draw": draw}
    return MODELS[mixer](vocab, width, classes, max_len, **options)
