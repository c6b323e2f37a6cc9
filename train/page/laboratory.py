"""The laboratory's Python: what its page calls. It needs NumPy alone, in the browser as elsewhere.

    start(lines)     read texts and draw a model's first parameters
    train(steps)     take steps; the learning curves so far
    explain(text)    each token's exact share of the decision
    run(source)      run a program that is typed in, with gradcheck at hand

Each takes and gives what JSON can say; a mistake of the user's comes back as {"error": a sentence}.
"""

import ast
import contextlib
import functools
import io
import json
import re
import time
import traceback
from collections import Counter
from itertools import count, islice

import numpy as np

import minisum
from minisum.errors import UserError
from minisum.gradcheck import Verdict, gradcheck, grid
from minisum.models.classifier import SummationClassifier
from minisum.optim import Adam
from minisum.params import Params
from minisum.runs.classifier import contributions
from minisum.shards import Shards
from minisum.text.batches import Ragged, batches, epoch_order, pad
from minisum.text.splits import hold_out
from train.run.curves import draw_curves

WORD = re.compile(r"\w+|[^\w\s]+")
UNKNOWN = 1  # the number of an unknown word; 0 is padding
WIDTH, MAX_LEN, VOCABULARY, BATCH, RATE, TOKEN_DROPOUT = 32, 64, 20_000, 32, 1e-3, 0.3
SOURCE = "<typed in>"
EXAMPLES = {
    "a right gradient": """\
def op(x, W):  # y = sin(x @ W.T)
    z = x @ W.T

    def back(dy):
        dz = dy * np.cos(z)
        return dz @ W, dz.T @ x

    return np.sin(z), back

gradcheck(op, rng.normal(size=(3, 4)), rng.normal(size=(2, 4)))
""",
    "a wrong gradient": """\
def op(x, b):  # y = relu(x) + b; a bias that all rows share
    def back(dy):
        return dy * (x >= 0), dy[0]  # wrong: db is the sum over all rows

    return np.maximum(x, 0) + b, back

gradcheck(op, grid(rng, (3, 4)), grid(rng, (4,)), exact=True)
""",
    "an operation of the library": """\
q, k, v = rng.normal(size=(3, 1, 2, 5, 4))  # B, heads, tokens, width
print(ops.attention.__doc__.splitlines()[0])
gradcheck(ops.attention, q, k, v)
""",
    "every operation of the library": """\
from minisum import op_table

for name in op_table.EXAMPLES:
    verdict, saved = op_table.check(name)
    print("right" if verdict else "WRONG", f"{saved:6} bytes saved ", name)
""",
}


class Training:
    """A classifier by direct summation of the words of some texts.

    lines: in each a label, a tab and a text. A fifth of the texts, at most 400, is held out.
    """

    def __init__(self, lines, seed=0):
        rows = [line.partition("\t") for line in lines.splitlines()]
        rows = [(label.strip(), text) for label, _, text in rows if label.strip() and text.strip()]
        labels, texts = [label for label, _ in rows], [text for _, text in rows]
        self.classes = sorted(set(labels))
        if len(self.classes) < 2:
            raise UserError("texts of two classes are needed: in each line a label, a tab, a text")
        targets = np.array([self.classes.index(label) for label in labels])
        fraction = min(0.2, 400 / len(texts))
        train, held = hold_out(texts, targets, fraction, "laboratory")
        words = Counter(word for i in train for word in words_of(texts[i]))
        frequent = [word for word, _ in words.most_common(VOCABULARY)]
        self.numbers = {word: 2 + i for i, word in enumerate(frequent)}
        self.texts = Ragged.from_list([self.encode(words_of(text)) for text in texts])
        self.targets, self.train, self.held = targets, train, held
        self.model = SummationClassifier(
            2 + len(frequent), WIDTH, len(self.classes), MAX_LEN, token_dropout=TOKEN_DROPOUT
        )
        rng = np.random.default_rng(seed)
        self.params = Params.from_arrays(self.model.init(rng))
        self.grads, self.shards = self.params.zeros_like(), Shards(self.model)
        self.adam, self.order = Adam(self.params), self.batches(seed)
        self.step, self.records = 0, []

    def encode(self, words):
        return np.array([self.numbers.get(word, UNKNOWN) for word in words], np.int32)

    def batches(self, seed):
        """Rows of one batch after another, epoch after epoch."""
        for epoch in count(1):
            for rows in batches(epoch_order(len(self.train), seed, epoch), BATCH):
                yield self.train[rows]

    def batch(self, rows):
        ids, mask = pad(self.texts.take(rows), MAX_LEN)
        return {"ids": ids, "mask": mask, "targets": self.targets[rows]}

    def take_steps(self, steps):
        """Take steps and record them; the milliseconds that one took."""
        start, losses = time.perf_counter(), []
        for rows in islice(self.order, steps):
            self.step += 1
            batch = self.batch(rows)
            batch |= self.model.noise(np.random.default_rng([0, self.step]), batch)
            batch = self.shards.to_device(batch, np)
            losses.append(float(self.shards.loss_and_grads(self.params, self.grads, batch)))
            self.adam.step(self.grads, RATE)
        milliseconds = 1000 * (time.perf_counter() - start) / steps
        record = {"step": self.step, "train_loss": sum(losses) / steps}
        self.records.append(record | self.held_out())
        return milliseconds

    def held_out(self):
        """Loss and accuracy on the texts that are not trained on."""
        batch = self.batch(self.held)
        logits = self.shards.predict(self.params, self.shards.to_device(batch, np))
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        right = logits.argmax(axis=1) == batch["targets"]
        loss = -log_p[np.arange(len(logits)), batch["targets"]].mean()
        return {"val_loss": float(loss), "val_accuracy": float(right.mean())}


def words_of(text):
    return WORD.findall(text.lower())


# ---- What the page calls


def for_page(function):
    """The function with its answer, or the sentence about what the user did wrong, as JSON."""

    @functools.wraps(function)
    def answer(*arguments):
        try:
            return json.dumps(function(*arguments))
        except UserError as error:
            return json.dumps({"error": str(error)})

    return answer


training = None  # the page's one


@for_page
def start(lines):
    global training
    training = Training(lines)
    return {
        "classes": training.classes,
        "texts": len(training.train),
        "held_out": len(training.held),
        "words": len(training.numbers),
        "parameters": training.params.count,
    }


@for_page
def train(steps):
    milliseconds = training.take_steps(steps)
    curves = draw_curves(training.records)
    return {"milliseconds": milliseconds, "curves": curves} | training.records[-1]


@for_page
def explain(text):
    spelled = WORD.findall(text)[:MAX_LEN]
    ids = training.encode(word.lower() for word in spelled)
    shares = contributions(training.model, training.params, ids, np.ones(len(ids), bool))
    found = {"classes": training.classes, "tokens": spelled, "shares": shares.tolist()}
    return found | {"bias": training.params["head"]["b"].tolist()}


@for_page
def run(source):
    """What a program prints, and the value of its last line; right: whether a verdict is."""
    names = {"np": np, "minisum": minisum, "ops": minisum.ops, "gradcheck": gradcheck}
    names |= {"grid": grid, "rng": np.random.default_rng(0)}
    printed, right = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            value = evaluate(source, names)
            if value is not None:
                print(value)
            if isinstance(value, Verdict):
                right = bool(value)
        except Exception as error:
            right = False
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                     if f.filename == SOURCE]  # fmt: skip
            where = f"line {lines[-1]}: " if lines else ""
            print(where + "".join(traceback.format_exception_only(error)).strip())
    return {"text": printed.getvalue(), "right": right}


def evaluate(source, names):
    """Run a program; the value of its last line if that is an expression."""
    program = ast.parse(source, SOURCE)
    last = None
    if program.body and isinstance(program.body[-1], ast.Expr):
        last = ast.Expression(program.body.pop().value)
    exec(compile(program, SOURCE, "exec"), names)
    return eval(compile(last, SOURCE, "eval"), names) if last else None
