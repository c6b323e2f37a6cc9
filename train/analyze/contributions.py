"""What each word contributes to a decision (see minisum.runs.classifier), on paper."""

import html
import math
from pathlib import Path
from string import Template

from minisum.errors import visible
from train.run.tables import terminal_width

STRONGEST = 0.75  # of a background colour's opacity


def account_of(found):
    """A JSON-able account of an Explanation: the prediction, and every word's part in it."""
    return {
        "predicted": found.label,
        "probability": float(found.probabilities.max()),
        "bias": float(found.bias[found.logits.argmax()] - found.bias.mean()),
        "words": [
            {"word": word, "contribution": float(value)}
            for word, value in zip(found.tokens, found.towards(), strict=True)
        ],
        "logits": {name: float(v) for name, v in zip(found.classes, found.logits, strict=True)},
    }


def in_terminal(account, coloured):
    """The text, its words blue for the predicted class and orange against it, or with numbers.

    Lines fit the terminal, unless a single word does not.
    """
    title = f"{visible(str(account['predicted']))} ({account['probability']:.1%}):"
    lines, room = [[title]], terminal_width() - len(title)
    for spelled, value, strength in _shades(account):
        word = visible(spelled) if coloured else f"{visible(spelled)}({value:+.2f})"
        if len(word) + 1 > room:
            lines, room = [*lines, [" "]], terminal_width() - 1
        room -= len(word) + 1
        if coloured and strength >= 0.1:
            level = round(60 + 140 * strength)
            colour = f"0;{level // 2};{level}" if value > 0 else f"{level};{level // 2};0"
            word = f"\x1b[48;2;{colour}m\x1b[38;2;255;255;255m{word}\x1b[0m"
        lines[-1].append(word)
    return "\n".join(map(" ".join, lines))


def in_html(accounts, title):
    """A standalone page: every text with its words shaded, exact numbers on hovering."""
    texts = "\n".join(_article(account) for account in accounts)
    page = Path(__file__).with_name("words.html").read_text(encoding="utf-8")
    return Template(page).substitute(title=html.escape(title), texts=texts)


def _article(account):
    words = []
    for word, value, strength in _shades(account):
        colour = "0,114,178" if value > 0 else "213,94,0"
        words.append(
            f'<span style="background:rgba({colour},{STRONGEST * strength:.2f})" '
            f'title="{value:+.4f}">{html.escape(word)}</span>'
        )
    known = ""
    if "true" in account:
        right = account["true"] == account["predicted"]
        known = f" <small>{'right' if right else 'wrong: ' + html.escape(account['true'])}</small>"
    total = sum(entry["contribution"] for entry in account["words"])
    return (
        f"<article><h2>{html.escape(account['predicted'])} "
        f"<small>{account['probability']:.1%}</small>{known}</h2>"
        f"<p>{' '.join(words)}</p>"
        f"<footer>words {total:+.3f}, bias {account['bias']:+.3f}</footer></article>"
    )


def _shades(account):
    """(word, contribution, its size from 0 to 1, the largest of the text) of every word."""
    found = [(entry["word"], entry["contribution"]) for entry in account["words"]]
    scale = max((abs(value) for _, value in found), default=0.0) or math.inf
    return [(word, value, abs(value) / scale) for word, value in found]
