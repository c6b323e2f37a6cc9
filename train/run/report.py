"""What a run prints: a header, a progress bar, a line an epoch, a final table.

Lines go to standard output, the bar and warnings to standard error; without a terminal (or tqdm)
a line a minute replaces the bar. If the reader goes away (`| head`, a closed terminal), the run
goes on in silence: the files are the record.
"""

import contextlib
import csv
import dataclasses
import io
import os
import sys
import textwrap
import time

import minisum
from minisum import machine
from minisum.errors import visible

WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}
BETWEEN_LINES = 60.0  # seconds, of the lines that replace a bar


class Report:
    def __init__(self, silent=False):
        """silent: print nothing, as on every rank but 0."""
        from train.run import tables

        self.silent, self.tables = silent, tables
        self.reported = ()  # the metrics that matter most, first of all the first
        self.widths = None  # of the columns of the epoch lines, once they are printed

    def say(self, text=""):
        if not self.silent:
            emit(sys.stdout, visible(text))

    def warn(self, text):
        if not self.silent:
            emit(sys.stderr, f"note: {visible(text)}")

    def header(self, task, more):
        if self.silent:
            return
        again, self.reported = self.reported, (task.metric, *task.report_metrics)
        self.widths = None
        if again:  # of the mixers of a comparison, what differs
            self.say(f"\n{task.config.mixer}, {more['parameters']} parameters, in {more['out']}")
            return
        rows = {"dataset": f"{task.dataset} (sha256 {task.data_sha256[:12]})"}
        rows |= {name.replace("_", " "): readable(value) for name, value in task.summary().items()}
        rows |= more
        rows["BLAS"] = machine.blas()
        self.say(f"minisum {minisum.__version__}, {task.name}")
        self.table(rows)
        self.table(grouped(task.config))
        self.say()

    def epoch(self, record, epochs, seconds_left, is_best):
        """One line of numbers, the first under column titles; * marks a new best epoch."""
        left_out = ("epoch", "step", "tokens_per_second", "seconds")
        cells = {"epoch": f"{record['epoch']}/{epochs}"}
        measured = {n.replace("_", " "): v for n, v in record.items() if n not in left_out}
        cells |= {name: f"{value:.4f}" for name, value in measured.items()}
        cells["tokens/s"] = f"{record['tokens_per_second']:,.0f}"
        cells |= {"time": duration(record["seconds"]), "left": duration(seconds_left)}
        if self.widths is None or not self.widths.keys() <= cells.keys():
            self.widths = self.tables.fitted(cells, measured, self.reported)
            self.say("\n".join(self.tables.titles_of(self.widths)))
        line = self.tables.GAP.join(cells[name].rjust(w) for name, w in self.widths.items())
        self.say(line + (" *" if is_best else ""))

    def sample(self, text):
        """What a model writes, on one line."""
        line = " ".join(visible(f"writes: {text}").split())
        self.say(line[: self.tables.terminal_width()])

    def table(self, rows):
        """Names and values; a long value goes on below its beginning."""
        column = max([18, *map(len, rows)])
        for name, value in rows.items():
            width = self.tables.terminal_width() - column - 3
            lines = textwrap.wrap(str(value), width, **WHOLE_WORDS)
            self.say(f"  {name:<{column}} " + ("\n" + " " * (column + 3)).join(lines))

    def result(self, result, folder):
        """The test metrics and what they cost."""
        rows = {
            name.replace("_", " "): readable(value)
            for name, value in result.items()
            if name.startswith(("best_", "val_", "test_", "majority_", "temperature"))
            and not name.endswith("_examples")
        }
        rows["parameters"] = readable(result["parameters"])
        rows["tokens/s"] = readable(result["tokens_per_second"])
        rows["time"] = duration(result["seconds"])
        rows["peak memory"] = f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB"
        rows["files in"] = str(folder)
        self.say()
        self.table(rows)

    @contextlib.contextmanager
    def bar(self, title, total, done):
        """Yield advance(loss), to call after every step: a tqdm bar on a terminal."""
        tqdm = None
        if self.silent:
            yield lambda loss: None
            return
        if sys.stderr is not None and sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm
        if tqdm is None:
            yield self.lines(title, total, done)
            return
        with tqdm(total=total, initial=done, desc=title, leave=False, unit="step") as bar:

            def advance(loss):
                bar.set_postfix_str(f"loss {loss:.4f}" if loss else "", refresh=False)
                bar.update()

            yield advance

    def lines(self, title, total, done):
        """advance(loss) without a terminal: a bar in a file would be a thousand lines."""
        first, started = done, time.monotonic()
        printed = started

        def advance(loss):
            nonlocal done, printed
            done, now = done + 1, time.monotonic()
            if now - printed < BETWEEN_LINES or done == total:
                return
            printed = now
            left = duration((now - started) / (done - first) * (total - done))
            so_far = f", loss {loss:.4f}" if loss else ""
            emit(sys.stderr, f"{title}: step {done:,} of {total:,}{so_far}, {left} left")

        return advance


def emit(stream, text):
    """Print a line now; after the first failure, to nowhere."""
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def silence(stream):
    """Redirect the stream to nowhere, so that Python's own flush at exit does not fail either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def grouped(config):
    """group of settings -> "name value, name value", of all that apply."""
    groups = {}
    own_file = getattr(config, "data", None) is not None
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None or value is False or (own_file and field.name == "dataset"):
            continue
        said = "" if value is True else ",".join(value) if isinstance(value, tuple) else value
        setting = f"{field.name.replace('_', '-')} {said}".strip()
        groups.setdefault(field.metadata["group"], []).append(setting)
    return {group: ", ".join(settings) for group, settings in groups.items()}


def readable(value):
    """A number as a person reads it: 0.1235, 12,345."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
    if isinstance(value, dict):
        shown = [f"{name} {readable(one)}" for name, one in list(value.items())[:10]]
        return ", ".join(shown + ["..."] * (len(value) > 10))
    return f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds):
    """12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def csv_of(rows):
    """Rows, dicts with the same keys, as csv."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
