"""An encoder, any mixer in blocks with the norm before, and three models on top of it.

    x₀ = E[ids] + P[place]          place: how many real tokens come before
    x_l = block_l(x_{l-1})          minisum.models.blocks, with GELU
    out = LN(x_L)

The classifier labels a text by the mean of `out`; the reader answers at single tokens, the
regressor with one number at the last.
"""

from minisum import init, mixers
from minisum.backend import array_module
from minisum.errors import require_known
from minisum.layers import linear_layer
from minisum.models.base import Model
from minisum.models.blocks import Block, Stack
from minisum.models.classifier import Classifier
from minisum.ops import cross_entropy, embed, gelu, mean_squared_error, mean_tokens
from minisum.params import add

POSITIONS = ("add", "none")


class Encoder(Stack):
    """The stack around one kind of mixer, a name as for `minisum.mixers.build`.

    d_ff: width of the token networks, 4 d by default, 0 for none. causal: whether no token sees a
    later one; None is "only if the mixer has no other form". positions: "add" learned ones, or
    "none" for mixers that tell order by themselves.

    A plain sum of n terms is n times as large as the token that it joins, which would be lost
    beside it: `summation`'s output is divided by max_len, a factor that its weights could hold.
    """

    def __init__(
        self, mixer, width, layers, max_len, heads=4, d_ff=None, causal=None, positions="add"
    ):
        require_known("positions", positions, POSITIONS)
        kind, _ = mixers.parse_name(mixer)
        if causal is None:
            causal = not mixers.TABLE[kind].can_be_bidirectional
        scale = 1 / max_len if kind == "summation" else 1.0
        blocks = [
            Block(
                mixers.build(mixer, width=width, heads=heads, max_len=max_len, causal=causal),
                4 * width if d_ff is None else d_ff, gelu, "before", scale,
            )
            for _ in range(layers)
        ]  # fmt: skip
        super().__init__(blocks, width, max_len, positions, deviation=0.02)


class EncoderClassifier(Classifier):
    """features = mean_t out_t over the real tokens; see `Classifier` for the rest.

    encoder: layers, heads, d_ff, causal, positions, as for `Encoder`.
    """

    kind = Encoder
    deviation = 1.0  # of the first values of embeddings

    def __init__(self, mixer, vocab, width, classes, max_len, encoder=None, **options):
        super().__init__(vocab, width, classes, max_len, **options)
        self.encoder = self.kind(mixer, width, max_len=max_len, **({"layers": 2} | (encoder or {})))

    def init(self, rng):
        first = super().init(rng)
        embedding = rng.normal(0.0, self.deviation, (self.vocab, self.width))
        return first | {"embedding": embedding}

    def init_features(self, rng):
        return self.encoder.init(rng)

    def features(self, params, ids, mask):
        x, back_embed = embed(ids, params["embedding"])  # (B, n, d)
        out, back_encoder = self.encoder(params, x, mask)
        features, back_pool = mean_tokens(out, self.pooled(ids, mask), self.power)  # (B, d)

        def back(dfeatures, grads):
            dout, _ = back_pool(dfeatures)
            dx = back_encoder(dout, grads)
            add(grads, {"embedding": back_embed(dx)[1]})

        return features, back

    def pooled(self, ids, mask):
        """The tokens whose mean the features are: (B, n) bool, or None for all."""
        return mask


class EncoderReader(Model):
    """Scores of the V words at some tokens: those at `places`.

    A batch holds ids (B, n), places (B, N), no place twice in a row, and targets (B, N), all
    integer. The loss is the cross-entropy of the targets.
    """

    def __init__(self, mixer, vocab, width, max_len, **encoder):
        self.vocab, self.width = vocab, width
        self.encoder = Encoder(mixer, width, max_len=max_len, **encoder)

    def init(self, rng):
        embedding = rng.normal(0.0, 1.0, (self.vocab, self.width))
        head = init.linear(rng, self.vocab, self.width)
        return {"embedding": embedding, "head": head} | self.encoder.init(rng)

    def loss(self, params, batch, total):
        ids = batch["ids"]
        xp = array_module(ids)
        x, back_embed = embed(ids, params["embedding"])  # (B, n, d)
        out, back_encoder = self.encoder(params, x)
        chosen = (xp.arange(len(ids))[:, None], batch["places"])
        scores, back_head = linear_layer(params["head"], out[chosen])  # (B, N, V)
        loss, back_loss = cross_entropy(scores, batch["targets"], total=total)

        def back(grads):
            dscores, _ = back_loss(1.0)
            dout = xp.zeros_like(out)
            dout[chosen], dhead = back_head(dscores)
            add(grads, {"head": dhead})
            dx = back_encoder(dout, grads)
            add(grads, {"embedding": back_embed(dx)[1]})

        return loss, back

    def predict(self, params, batch):
        """Scores (B, N, V)."""
        x, _ = embed(batch["ids"], params["embedding"])
        out, _ = self.encoder(params, x)
        rows = array_module(x).arange(len(x))[:, None]
        return linear_layer(params["head"], out[rows, batch["places"]])[0]


class EncoderRegressor(Model):
    """One number, read from the last token: answer = w · out_n + c.

    A batch holds x (B, n, D), the tokens as vectors of `inputs` numbers, and targets (B,). The
    loss is the mean squared error.
    """

    def __init__(self, mixer, inputs, width, max_len, **encoder):
        self.inputs, self.width = inputs, width
        self.encoder = Encoder(mixer, width, max_len=max_len, **encoder)

    def init(self, rng):
        read = init.linear(rng, self.width, self.inputs)
        head = init.linear(rng, 1, self.width)
        return {"read": read, "head": head} | self.encoder.init(rng)

    def activation_size(self, batch):
        return batch["x"].shape[1] * self.width

    def loss(self, params, batch, total):
        x, back_read = linear_layer(params["read"], batch["x"])  # (B, n, d)
        out, back_encoder = self.encoder(params, x)
        answers, back_head = linear_layer(params["head"], out[:, -1])  # (B, 1)
        loss, back_loss = mean_squared_error(answers[:, 0], batch["targets"], total=total)

        def back(grads):
            danswers, _ = back_loss(1.0)
            dout = array_module(out).zeros_like(out)
            dout[:, -1], dhead = back_head(danswers[:, None])
            dx = back_encoder(dout, grads)
            add(grads, {"read": back_read(dx)[1], "head": dhead})

        return loss, back

    def predict(self, params, batch):
        """Answers (B,)."""
        x, _ = linear_layer(params["read"], batch["x"])
        out, _ = self.encoder(params, x)
        return linear_layer(params["head"], out[:, -1])[0][:, 0]
