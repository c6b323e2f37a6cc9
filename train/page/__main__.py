"""Make one page of a trained classifier: python -m train.page RUN --out page.html

The page needs no network and no server. It holds the weights in float16 and about forty lines of
script, which compute what the model computes: type a text and see each token's exact share of the
decision, the probability of each class, and how the model was trained.
"""

import argparse
import base64
import html
import json
import string
import sys
from pathlib import Path

import numpy as np

import minisum
from minisum.checkpoint import write_bytes
from minisum.errors import UserError
from minisum.runs.classifier import contributions
from minisum.text.tokenizer import PAD, WORD_BREAKS
from train.command_line import run_with_exit_status
from train.run.curves import learning_curves
from train.run.options import Parser, utf8
from train.run.report import emit

# What \w+|[^\w\s]+ means to the tokenizers' library, as JavaScript spells it.
LETTERS = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d"
WORDS_AND_SIGNS = rf"[{LETTERS}]+|[^{LETTERS}\p{{White_Space}}]+"
TEMPLATE = Path(__file__).with_name("page.html")
# The page's names of the arrays, and the model's.
ARRAYS = {
    "embedding": "embedding", "positions": "positions", "project": "project.W", "head": "head.W",
    "bias": "head.b",
}  # fmt: skip


def parser():
    parser = Parser(
        prog="python -m train.page",
        description="Make one self-contained page of a trained classifier, for the browser.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a classifier's run")
    parser.add_argument("--out", metavar="FILE", required=True, help="the page")
    parser.add_argument(
        "--text",
        type=utf8,
        default="Type or paste a text here.",
        help="the text that it begins with",
    )
    return parser


def described(run):
    """What the script needs to know of a ClassifierRun, JSON-able."""
    contributions(run.model, run.params, np.zeros(0, int), np.zeros(0, bool))  # refuses if inexact
    flat = run.params.to_host()
    form = json.loads(run.tokenizer.to_str())
    if form["model"]["type"] != "WordLevel":
        raise UserError("a page is made of a classifier of words: train with --tokenizer word")
    breaks = "".join(escaped(character) for character in WORD_BREAKS)
    with_signs = form["pre_tokenizer"]["type"] == "Whitespace"
    words = sorted(run.tokenizer.get_vocab().items(), key=lambda item: item[1])
    reader = run.reader
    return {
        "classes": [str(name) for name in run.classes],
        "words": [word for word, _ in words],
        "word": WORDS_AND_SIGNS if with_signs else f"[^{breaks}]+",
        "pad": PAD,
        "max_len": reader.max_len,
        "padding": reader.padding,
        "drop_unknown": reader.drop_unknown,
        "unmasked": not run.model.masked,
        "power": run.model.power,
        "temperature": run.temperature,
        "width": run.model.width,
        "arrays": {n: in_float16(flat[name], name) for n, name in ARRAYS.items() if name in flat},
    }


def escaped(character):
    """A character as a JavaScript pattern spells it in a class, in any mode."""
    return f"\\u{ord(character):04x}"


def in_float16(array, name):
    """base64 of an array in float16, little-endian."""
    half = array.astype("<f2")
    if not np.isfinite(half).all():
        raise UserError(f"{name} holds numbers too large for the page's float16")
    return base64.b64encode(half.tobytes()).decode()


def page_of(run, path, text):
    """The page as a string; path: the run's folder, for its name and its learning curves."""
    mixer = run.spec["model"]["mixer"]
    about = (
        f"{mixer}, {run.params.count:,} parameters, {len(run.classes)} classes. The page computes "
        "with the model's own weights, in float16; nothing that you type leaves it."
    )
    model = json.dumps(described(run), ensure_ascii=False, separators=(",", ":"))
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{Path(path).resolve().name}: what each word adds"),
        about=html.escape(about),
        text=html.escape(text),
        curves=learning_curves(Path(path) / "metrics.jsonl"),
        model=model.replace("<", "\\u003c"),  # or a word could end the script
    )


def main(arguments=None):
    """Write the page; return the exit status."""
    with run_with_exit_status() as outcome:
        chosen = parser().parse_args(arguments)
        run = minisum.load(chosen.run, task="classifier")
        page = page_of(run, chosen.run, chosen.text).encode("utf-8", "replace")
        write_bytes(chosen.out, page)
        emit(sys.stdout, f"{chosen.out} ({len(page) / 2**20:.1f} MiB): open it in a browser")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
