"""Two more models on the encoder's tokens: answers at some of them, or one number at the last."""

from minisum.backend import array_module
from minisum.models.base import Model
from minisum.models.blocks import linear_init
from minisum.models.encoder import Encoder, embedding_init
from minisum.ops import cross_entropy, embed, linear, mean_squared_error


class EncoderReader(Model):
    """Scores of the V words at some tokens: those at `places`.

    A batch holds ids (B, n), places (B, N), no place twice in a row, and targets (B, N), all
    integer. The loss is the cross-entropy of the targets.
    """

    def __init__(self, mixer, vocab, width, max_len, **encoder):
        self.vocab, self.width = vocab, width
        self.encoder = Encoder(mixer, width, max_len=max_len, **encoder)

    def init(self, rng):
        arrays = {"embedding": embedding_init(rng, self.vocab, self.width)}
        head = linear_init(rng, "", self.vocab, self.width)
        return arrays | self.encoder.init(rng) | {f"head.{name}": a for name, a in head.items()}

    def count_targets(self, batch):
        return batch["targets"].size

    def activation_size(self, batch):
        return batch["ids"].shape[1] * self.width

    def loss(self, params, batch, total):
        scores, back_scores = self._scores(params, batch)
        loss, back_loss = cross_entropy(scores, batch["targets"], total=total)

        def back(grads):
            back_scores(back_loss(1.0)[0], grads)

        return loss, back

    def predict(self, params, batch):
        """Scores (B, N, V)."""
        return self._scores(params, batch)[0]

    def _scores(self, params, batch):
        ids, places = batch["ids"], batch["places"]
        x, back_embed = embed(ids, params["embedding"])
        out, back_encoder = self.encoder(params, x)
        xp = array_module(out)
        chosen = (xp.arange(len(ids))[:, None], places)
        scores, back_head = linear(out[chosen], params["head.W"], params["head.b"])

        def back(dscores, grads):
            dchosen, dW, db = back_head(dscores)
            grads["head.W"] += dW
            grads["head.b"] += db
            dout = xp.zeros_like(out)
            dout[chosen] = dchosen
            _, dembedding = back_embed(back_encoder(dout, grads))
            dembedding.add_to(grads["embedding"])

        return scores, back


class EncoderRegressor(Model):
    """One number, read off the last token: answer = w · out_n + c.

    A batch holds x (B, n, D), the tokens as vectors of `inputs` numbers, and targets (B,). The
    loss is the mean squared error.
    """

    def __init__(self, mixer, inputs, width, max_len, **encoder):
        self.inputs, self.width = inputs, width
        self.encoder = Encoder(mixer, width, max_len=max_len, **encoder)

    def init(self, rng):
        first = linear_init(rng, "", self.width, self.inputs)
        last = linear_init(rng, "", 1, self.width)
        arrays = {f"read.{name}": a for name, a in first.items()} | self.encoder.init(rng)
        return arrays | {f"head.{name}": a for name, a in last.items()}

    def count_targets(self, batch):
        return len(batch["targets"])

    def activation_size(self, batch):
        return batch["x"].shape[1] * self.width

    def loss(self, params, batch, total):
        answers, back_answers = self._answers(params, batch["x"])
        loss, back_loss = mean_squared_error(answers, batch["targets"], total=total)

        def back(grads):
            back_answers(back_loss(1.0)[0], grads)

        return loss, back

    def predict(self, params, batch):
        """Answers (B,)."""
        return self._answers(params, batch["x"])[0]

    def _answers(self, params, vectors):
        x, back_read = linear(vectors, params["read.W"], params["read.b"])
        out, back_encoder = self.encoder(params, x)
        answers, back_head = linear(out[:, -1], params["head.W"], params["head.b"])
        xp = array_module(out)

        def back(danswers, grads):
            dlast, dW, db = back_head(danswers[:, None])
            grads["head.W"] += dW
            grads["head.b"] += db
            dout = xp.zeros_like(out)
            dout[:, -1] = dlast
            _, dW, db = back_read(back_encoder(dout, grads))
            grads["read.W"] += dW
            grads["read.b"] += db

        return answers[:, 0], back
