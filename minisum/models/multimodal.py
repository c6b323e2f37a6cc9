"""Text and numbers to one number: summation with one shared channel, and its baselines.

Text and numbers become vectors of one width, which are summed: the text by direct summation, each
number by its own small network, its tower.

    text     t = relu(Σ_s relu((E[ids[s]] ⊙ (P[s] + 1)) @ W.T) @ Wt.T + bt)
    numbers  u = two dense layers of Σ_i tower_i(number_i), a tower being two dense layers
    both     y = linear(dropout(dense₆₄(dense(t + u))))

Source: P. Ekin, "Summation-based transformers", the released multimodal.py. Its rival concatenates
the vectors instead (`ConcatenationRegressor`). Ridge regression on the numbers shows what the text
contributes, and the same model without numbers what they contribute.
"""

from minisum import init, mixers
from minisum.backend import array_module
from minisum.errors import require_known
from minisum.layers import linear_layer, position_layer
from minisum.models.base import TextModel
from minisum.models.bert import BertClassifier
from minisum.models.classifier import POOLING, SummationClassifier
from minisum.models.closed_form import RidgeRegressor
from minisum.ops import dropout, embed, layer_norm, mean_squared_error, mean_tokens, relu
from minisum.params import add

HEAD_WIDTH = 64
NORM_EPS = 1e-3


class Regressor(TextModel):
    """A joint vector of the modalities, two dense layers, dropout, one number; squared error.

    vocab V, width d, columns k the numeric columns, inputs f the numbers that describe a cell (its
    standardised value and, with f = 2, whether it is missing), max_len the longest text in tokens.
    The dropouts: see `TextModel`. A batch holds numbers (B, k, f) besides the text. Subclasses
    define `init_joint`, `joint` and `joint_width`.
    """

    default_pooling = "sum"
    dropout_width = HEAD_WIDTH

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
        """Initial parameters as in the released code, by Keras; attention's by `draw`."""
        return {
            **self.init_joint(rng),
            "fuse": init.linear(rng, self.width, self.joint_width, "glorot"),
            "narrow": init.linear(rng, HEAD_WIDTH, self.width, "glorot"),
            "head": init.linear(rng, 1, HEAD_WIDTH, "glorot"),
        }

    def activation_size(self, batch):
        # An eighth of one layer's array: the towers and the head read all their weights for every
        # shard, and larger ones share that.
        return super().activation_size(batch) // 8

    def loss(self, params, batch, total):
        keep = batch.get("keep")
        joint, back_joint = self.joint(params, batch)  # (B, joint_width)
        fused, back_fuse = dense(params["fuse"], joint)  # (B, d)
        narrow, back_narrow = dense(params["narrow"], fused)  # (B, 64)
        if keep is not None:
            narrow, back_dropout = dropout(narrow, keep, self.dropout)
        y, back_head = linear_layer(params["head"], narrow)  # (B, 1)
        loss, back_loss = mean_squared_error(y[:, 0], batch["targets"], total=total)

        def back(grads):
            dy, _ = back_loss(1.0)
            dnarrow, dhead = back_head(dy[:, None])
            if keep is not None:
                dnarrow, _ = back_dropout(dnarrow)
            dfused, dparams_narrow = back_narrow(dnarrow)
            djoint, dparams_fuse = back_fuse(dfused)
            add(grads, {"head": dhead, "narrow": dparams_narrow, "fuse": dparams_fuse})
            back_joint(djoint, grads)

        return loss, back

    def predict(self, params, batch):
        """The predicted targets (B,), standardised like those it was trained on."""
        x, _ = self.joint(params, batch)
        x, _ = dense(params["fuse"], x)
        x, _ = dense(params["narrow"], x)
        return linear_layer(params["head"], x)[0][:, 0]


class WordsRegressor(Regressor):
    """The text alone, by the classifier's direct summation: the model without numbers. O(n d²).

    encoder: what makes a `BertEncoder` that reads the text in the summation's place.
    """

    def __init__(self, *sizes, encoder=None, **options):
        super().__init__(*sizes, **options)
        shape, pooling = (self.vocab, self.width, 1, self.max_len), options.get("pooling")
        self.reader, self.packs = SummationClassifier(*shape, pooling), not encoder
        if encoder:
            self.reader = BertClassifier("attention", *shape, encoder, pooling)

    def init_joint(self, rng):
        d = self.width
        embedding = {"embedding": rng.uniform(-0.05, 0.05, (self.vocab, d))}
        reader = self.reader.init_features(rng)
        return embedding | reader | {"text": init.linear(rng, d, d, "glorot")}

    def joint(self, params, batch):
        total, back_total = self.reader.features(params, batch["ids"], batch["mask"])
        text, back_text = dense(params["text"], total)

        def back(dtext, grads):
            dtotal, dparams = back_text(dtext)
            add(grads, {"text": dparams})
            back_total(dtotal, grads)

        return text, back


class SummationRegressor(WordsRegressor):
    """One shared channel: the text's vector plus the numbers' vector. O(n d²)."""

    def init_joint(self, rng):
        d = self.width
        return {
            **super().init_joint(rng),
            "towers": init_towers(rng, self.columns, self.inputs, d),
            "numbers": init_two_dense(rng, d, d),
        }

    def joint(self, params, batch):
        text, back_text = super().joint(params, batch)
        vectors, back_towers = towers(params["towers"], batch["numbers"])
        numbers, back_numbers = two_dense(params["numbers"], sum(vectors[1:], vectors[0]))

        def back(dsum, grads):
            back_text(dsum, grads)
            dvector, dnumbers = back_numbers(dsum)
            dtowers = back_towers([dvector] * len(vectors))
            add(grads, {"numbers": dnumbers, "towers": dtowers})

        return text + numbers, back


class ConcatenationRegressor(Regressor):
    """The published rival: an attention layer over the text, all vectors concatenated. O(n² d).

    text = mean_s LN(x_s + attention(x)_s), x = E[ids] + P; joint = [text, tower₁, ..., tower_k].
    """

    default_pooling = "mean"

    def __init__(self, *sizes, heads=4, draw="glorot", **options):
        super().__init__(*sizes, **options)
        self.mixer = mixers.build("attention", self.width, heads, self.max_len, draw=draw)

    @property
    def joint_width(self):
        return self.width * (1 + self.columns)

    def init_joint(self, rng):
        d = self.width
        return {
            "embedding": rng.uniform(-0.05, 0.05, (self.vocab, d)),
            "positions": rng.normal(0.0, 0.02, (self.max_len, d)),
            "mixer": self.mixer.init(rng),
            "norm": init.norm(d),
            "towers": init_towers(rng, self.columns, self.inputs, d),
        }

    def joint(self, params, batch):
        ids, mask = batch["ids"], batch["mask"]
        gain, bias = params["norm"]["gain"], params["norm"]["bias"]
        x, back_embed = embed(ids, params["embedding"])  # (B, n, d)
        placed, back_positions = position_layer(params, x, "add")
        mixed, back_mixer = self.mixer(params["mixer"], placed, mask)
        normed, back_norm = layer_norm(placed + mixed, gain, bias, NORM_EPS)
        text, back_pool = mean_tokens(normed, mask, self.power)  # (B, d)
        vectors, back_towers = towers(params["towers"], batch["numbers"])
        d = self.width

        def back(djoint, grads):
            dtext, *dvectors = (djoint[:, i * d : (i + 1) * d] for i in range(1 + self.columns))
            add(grads, {"towers": back_towers(dvectors)})
            dnormed, _ = back_pool(dtext)
            dsum, dgain, dbias = back_norm(dnormed)
            dthrough, dmixer = back_mixer(dsum)
            dx, dpositions = back_positions(dsum + dthrough)
            add(grads, {"norm": {"gain": dgain, "bias": dbias}, "mixer": dmixer} | dpositions)
            add(grads, {"embedding": back_embed(dx)[1]})

        return array_module(text).concatenate([text, *vectors], axis=1), back


def dense(params, x):
    """y = relu(x @ W.T + b); back(dy) -> dx, dparams."""
    z, back_linear = linear_layer(params, x)
    y, back_relu = relu(z)
    return y, lambda dy: back_linear(back_relu(dy))


def two_dense(params, x):
    """Two dense layers, first and second; back(dy) -> dx, dparams."""
    hidden, back_first = dense(params["first"], x)
    y, back_second = dense(params["second"], hidden)

    def back(dy):
        dhidden, dsecond = back_second(dy)
        dx, dfirst = back_first(dhidden)
        return dx, {"first": dfirst, "second": dsecond}

    return y, back


def towers(params, numbers):
    """A vector (B, d) for each numeric column, by two dense layers of its own.

    numbers (B, k, f) -> list of k vectors; back(list of their gradients) -> dparams.
    """
    passes = [two_dense(params[str(i)], numbers[:, i]) for i in range(numbers.shape[1])]

    def back(dvectors):
        pairs = zip(passes, dvectors, strict=True)
        return {str(i): back(dvector)[1] for i, ((_, back), dvector) in enumerate(pairs)}

    return [vector for vector, _ in passes], back


def init_two_dense(rng, width, inputs):
    first = init.linear(rng, width, inputs, "glorot")
    return {"first": first, "second": init.linear(rng, width, width, "glorot")}


def init_towers(rng, columns, inputs, width):
    return {str(i): init_two_dense(rng, width, inputs) for i in range(columns)}


MODELS = {
    "summation": SummationRegressor,
    "attention": ConcatenationRegressor,
    "words": WordsRegressor,
}
MIXERS = (*MODELS, "ridge")


def build(
    mixer, vocab, width, columns, max_len, inputs=1, heads=4, draw="glorot", solution=None,
    **options,
):  # fmt: skip
    """The model called `mixer`, one of MIXERS. options: pooling, dropout, token_dropout.

    solution: the closed form's (w, b), which is all that "ridge" needs; see `solve_ridge`.
    """
    if mixer == "ridge":
        return RidgeRegressor(columns, inputs, solution)
    require_known("unknown mixer", mixer, MIXERS)
    if mixer == "attention":
        options |= {"heads": heads, "draw": draw}
    return MODELS[mixer](vocab, width, columns, max_len, inputs=inputs, **options)
