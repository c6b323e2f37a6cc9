"""Tasks whose answers are read at some places of a text: recall, copying and state tracking.

Copying and state tracking are learned on short texts and tested on longer ones too. Every score is
kept for each length, as the share of answers that are right and as the share of texts whose answers
are all right so far. The first flatters: the first answers of a text are easy.
"""

import numpy as np

from data.generated.copying import KINDS, Copying
from data.generated.recall import Recall
from data.generated.state_tracking import GROUPS, StateTracking
from minisum.errors import UserError
from minisum.models.encoder import EncoderReader
from train.compare.base import TEST_STREAM, VALIDATION_STREAM, GeneratedTask
from train.run.figures import finish, picture
from train.run.tables import aligned

# Words over a group: small models of one layer and without positions.
WORDS = {
    "length": 24, "test_length": 96, "ask": "every", "test_size": 512, "width": 32, "layers": 1,
    "positions": "none", "steps": 600, "lr": 1e-2,
    "mixers": "attention,gla,deltanet:conv=0,deltanet:conv=0:beta_max=2,"
    "deltaproduct:conv=0:beta_max=1,deltaproduct:conv=0",
}  # fmt: skip
PARITY = {"length": 40, "min_length": 3, "ask": "last", "test_length": 256, "steps": 300}
COPIES = {
    "length": 64, "test_length": 256, "vocab_size": 16, "test_size": 512, "positions": "none",
    "batch_size": 128, "lr": 3e-3,
}  # fmt: skip
SETTINGS = {
    "recall": {"length": 64, "vocab_size": 128, "pairs": 4, "filler": "random", "test_size": 3000},
    **dict.fromkeys(GROUPS, WORDS),
    "parity": WORDS | PARITY,
    "copying": COPIES | {"length": 16, "test_length": 64},
    "selective_copying": COPIES | {"letters": 16},
    "induction": COPIES,
}
READERS = 4096  # texts from which a reader of one token learns what to answer


class ReaderTask(GeneratedTask):
    """Accuracy at some places of a text, which the source calls `places` and `targets`.

    Causal for every mixer: an answer is read as it is asked for.
    """

    causal = True
    first = slice(0, 1)  # the places of the first token that is no beginning

    def __init__(self, config, vocab, max_len):
        super().__init__(config, max_len)
        self.vocab = vocab

    def model(self, mixer):
        return EncoderReader(mixer, self.vocab, self.config.width, self.max_len, **self.encoder())

    def tokens(self, batch):
        return batch["ids"].size

    def readers(self, train, test):
        """name -> whether readers of one token hit each answer of `test`, having counted `train`'s.

        They say what most often goes with no token, the first, or the one that asks.
        """
        tokens = {
            "most frequent answer": lambda batch: 0 * batch["places"],
            "first token": lambda batch: batch["ids"][:, self.first] + 0 * batch["places"],
            "last token": lambda batch: np.take_along_axis(batch["ids"], batch["places"], axis=1),
        }
        hits = {}
        for name, token in tokens.items():
            both = token(train) * self.vocab + train["targets"]
            pairs, counts = np.unique(both, return_counts=True)
            order = np.lexsort((-pairs, counts))  # the most frequent last, where it stays
            best = np.zeros(self.vocab, int)
            best[pairs[order] // self.vocab] = pairs[order] % self.vocab
            hits[name] = best[token(test)] == test["targets"]
        return hits


class RecallTask(ReaderTask):
    """Accuracy at the questions, of the test set and of validation texts."""

    def __init__(self, config):
        super().__init__(config, config.vocab_size, config.length)
        fill = config.filler == "random"
        self.source = Recall(config.vocab_size, config.length, config.pairs, random_filler=fill)

    def test_scores(self, predict):
        drawn = self.batches_of(self._draw(VALIDATION_STREAM, self.config.test_size))
        return super().test_scores(predict) | {"validation": self.mean_score(predict, drawn)}

    def baselines(self):
        readers = self.readers(self._draw(VALIDATION_STREAM, READERS), self.test_set())
        known = {"chance": 2 / self.vocab, "any of its values": 1 / self.config.pairs}
        return known | {name: round(float(hits.mean()), 4) for name, hits in readers.items()}


class SequenceTask(ReaderTask):
    """Tested at several lengths. Subclasses define `lengths`, and `test_set` of one of them."""

    def test_scores(self, predict):
        """Of the longest length, and lengths: a list of [length, accuracy, whole]."""
        rows = []
        for length in self.lengths:
            batches = self.batches_of(self.test_set(length))
            hits = [predict(batch).argmax(axis=-1) == batch["targets"] for batch in batches]
            rows += self.rows_of(length, np.concatenate(hits))
        rows = [[length, round(float(a), 4), round(float(b), 4)] for length, a, b in rows]
        return {"accuracy": rows[-1][1], "whole": rows[-1][2], "lengths": rows}

    def rows_of(self, length, hits):
        """[(length, accuracy, whole)] of answers that were hit or missed, (texts, places)."""
        return [(length, hits.mean(), hits.all(axis=1).mean())]

    def baselines(self):
        """Chance, and what readers of one token score at the longest length."""
        train = self.test_set(stream=VALIDATION_STREAM, rows=READERS)
        readers = self.readers(train, self.test_set())
        scores = {"chance": 1 / len(np.unique(train["targets"]))}
        for name, hits in readers.items():
            scores[name] = round(float(self.rows_of(self.lengths[-1], hits)[-1][1]), 4)
        return scores

    def trained(self, curve):
        """The row of the longest length that was trained."""
        return max(row for row in map(tuple, curve) if row[0] <= self.config.length)

    def summary(self, folder, results, baselines):
        draw_lengths(folder.path / "lengths.png", results, self, baselines)
        trained, longest = self.config.length, self.lengths[-1]
        lengths = dict.fromkeys((trained, 2 * trained, 4 * trained, longest))
        shown = [n for n in lengths if n <= longest]
        lines = [["mixer, seed", *(f"{n}: answers, texts" for n in shown)]]
        for result in results:
            scores = {n: rest for n, *rest in result.get("lengths", ())}
            cells = ["{:.3f} {:.3f}".format(*scores[n]) if n in scores else "-" for n in shown]
            lines.append([f"{result['mixer']}, {result['seed']}", *cells])
        title = "right at each length: answers, and texts with all answers so far"
        return ["", title, *aligned(lines)]


class WordTask(SequenceTask):
    """State tracking. A word of the longest length, asked at every place, tests all lengths."""

    first = slice(1, 2)

    def __init__(self, config):
        if config.test_length < config.length:
            raise UserError(f"--test-length {config.test_length} is below --length {config.length}")
        last = config.ask == "last"
        shortest = config.min_length if last else None
        self.source = StateTracking(config.task, config.length, shortest, last)
        self.lengths = [config.test_length]
        super().__init__(config, self.source.vocab, config.test_length + 1)

    def test_set(self, length=None, stream=TEST_STREAM, rows=None):
        words = StateTracking(self.config.task, length or self.lengths[-1])
        return words.draw(np.random.default_rng(stream), rows or self.config.test_size)

    def rows_of(self, length, hits):
        whole = np.logical_and.accumulate(hits, axis=1)
        return [(1 + t, hits[:, t].mean(), whole[:, t].mean()) for t in range(length)]


class CopyTask(SequenceTask):
    """Copying of at most `length` letters, selective copying and induction in `length` tokens."""

    def __init__(self, config):
        if config.test_length < config.length:
            raise UserError(f"--test-length {config.test_length} is below --length {config.length}")
        doublings = (config.test_length // config.length).bit_length()
        self.lengths = [config.length << k for k in range(doublings)]
        max_len = self.source_of(config, self.lengths[-1]).length
        super().__init__(config, config.vocab_size, max_len)

    @staticmethod
    def source_of(config, length):
        if config.task == "copying":
            return Copying(config.task, config.vocab_size, 2 * length + 1, length)
        return Copying(config.task, config.vocab_size, length, config.letters or 1)

    def train_batch(self, seed, step):
        rng, length = np.random.default_rng([seed, step]), self.config.length
        if self.config.task == "copying":
            length = int(rng.integers(1, length, endpoint=True))
        return self.source_of(self.config, length).draw(rng, self.config.batch_size)

    def test_set(self, length=None, stream=TEST_STREAM, rows=None):
        source = self.source_of(self.config, length or self.lengths[-1])
        return source.draw(np.random.default_rng(stream), rows or self.config.test_size)


TASKS = {
    "recall": RecallTask,
    **dict.fromkeys(GROUPS, WordTask),
    **dict.fromkeys(KINDS, CopyTask),
}


@picture(13, 5.5)
def draw_lengths(figure, results, task, baselines):
    """Against length: answers that are right, and texts; the mean of the seeds of each mixer."""
    curves = {}
    for result in results:
        if result["accuracy"] is not None:
            curves.setdefault(result["mixer"], []).append(result["lengths"])
    curves = {mixer: np.mean(runs, axis=0) for mixer, runs in curves.items()}  # (lengths, 3)
    threshold = baselines["chance"] + 0.08
    learned = [mixer for mixer, curve in curves.items() if task.trained(curve)[1] > threshold]
    panels = ((1, "answers right at that length"), (2, "texts right at every place so far"))
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        grey, name = {"color": "lightgrey", "linewidth": 0.8, "linestyle": "-"}, "at chance"
        for mixer in sorted(curves, key=learned.__contains__):
            style = {"label": mixer, "linewidth": 1.6} if mixer in learned else grey
            if style is grey:
                style, name = grey | {"label": name}, "_"  # one of them in the legend
            curve = curves[mixer]
            axes.plot(*curve[:, [0, column]].T, marker="." if len(curve) < 12 else "", **style)
        axes.axvline(task.config.length, color="grey", linewidth=0.8, label="longest in training")
        chance = {"color": "grey", "linewidth": 0.8, "linestyle": ":", "label": "chance"}
        axes.axhline(baselines["chance"], **chance)
        axes.set_ylim(-0.02, 1.02)
        finish(axes, "length of a text", label, legend=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
