"""What each word contributes to a summation model's decision.

The features of a text are a sum over its tokens and the head is linear, so every logit is a sum of
one number a token (and the head's bias): an exact account, where most models allow only estimates.
"""

import html
import math
from pathlib import Path
from string import Template

import numpy as np

from minisum import backend
from minisum.errors import UserError

STRONGEST = 0.75  # of a background colour's opacity


def contributions(model, params, ids, mask):
    """(n, C): what each token of a text adds to each class's logit; with the bias, all of it.

    ids (n,), mask (n,) bool. Padding adds nothing, unless the model was trained without a mask.
    UserError for a model that does not sum its tokens.
    """
    if not hasattr(model, "contributions"):
        raise UserError(
            "exact contributions are for models that sum their tokens: summation, mean_embedding"
        )
    xp = params.xp
    added = model.contributions(params, xp.asarray(ids)[None])[0]
    counted = int(mask.sum()) if model.masked else len(ids)
    parts = backend.to_numpy(added @ params["head"]["W"].T) / max(counted, 1) ** model.power
    return np.where(mask[:, None], parts, 0) if model.masked else parts


def explain(model, params, ids, mask, words, class_names):
    """A JSON-able account of one text: its prediction, and every word's part in it.

    words (n): how each token is written, None for one that is not shown.
    """
    parts = contributions(model, params, ids, mask)
    bias = backend.to_numpy(params["head"]["b"])
    logits = parts.sum(axis=0) + bias
    chosen = int(logits.argmax())
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    # What speaks for the class is what it gains over the average class: logits have no zero.
    towards = parts[:, chosen] - parts.mean(axis=1)
    return {
        "predicted": class_names[chosen],
        "probability": float(probability[chosen]),
        "bias": float(bias[chosen] - bias.mean()),
        "words": [
            {"word": word, "contribution": float(value)}
            for word, value in zip(words, towards, strict=True)
            if word is not None
        ],
        "logits": {name: float(v) for name, v in zip(class_names, logits, strict=True)},
    }


def in_terminal(account, coloured):
    """The text, its words green for the predicted class and red against it, or with numbers."""
    scale = _scale(account)
    painted = []
    for entry in account["words"]:
        word, value = entry["word"], entry["contribution"]
        if not coloured:
            painted.append(f"{word}({value:+.2f})")
            continue
        strength = abs(value) / scale
        if strength < 0.1:
            painted.append(word)
        else:
            level = round(60 + 140 * strength)
            colour = f"0;{level};0" if value > 0 else f"{level};0;0"
            painted.append(f"\x1b[48;2;{colour}m\x1b[38;2;255;255;255m{word}\x1b[0m")
    return f"{account['predicted']} ({account['probability']:.1%}): " + " ".join(painted)


def in_html(accounts, title):
    """A standalone page: every text with its words shaded, exact numbers on hovering."""
    texts = "\n".join(_article(account) for account in accounts)
    page = Path(__file__).with_name("words.html").read_text(encoding="utf-8")
    return Template(page).substitute(title=html.escape(title), texts=texts)


def _article(account):
    scale = _scale(account)
    words = []
    for entry in account["words"]:
        value = entry["contribution"]
        opacity = STRONGEST * abs(value) / scale
        colour = "0,140,60" if value > 0 else "200,40,40"
        words.append(
            f'<span style="background:rgba({colour},{opacity:.2f})" '
            f'title="{value:+.4f}">{html.escape(entry["word"])}</span>'
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


def _scale(account):
    """The largest contribution of the text, which gets the strongest colour."""
    sizes = [abs(entry["contribution"]) for entry in account["words"]]
    return max(sizes, default=0.0) or math.inf
