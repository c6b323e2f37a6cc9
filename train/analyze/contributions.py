"""What each word contributes to a decision (see minisum.runs.classifier), on paper."""

import html
import math

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
    return _PAGE.format(title=html.escape(title), texts=texts)


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


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }}
article {{ border-top: 1px solid #ccc; padding: .6rem 0 }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.05rem; margin: .2rem 0 }}
small, footer {{ color: #666; font-weight: normal; font-size: .85rem }}
span {{ border-radius: 3px; padding: 0 2px }} p {{ margin: .2rem 0; overflow-wrap: anywhere }}
.for {{ background: rgba(0,140,60,.5) }} .against {{ background: rgba(200,40,40,.5) }}
</style></head><body>
<h1>{title}</h1>
<p>Each word's exact contribution to the logit of the predicted class, over the average class:
<span class="for">for it</span> or <span class="against">against it</span>. Hover for numbers. The
contributions and the bias sum to the logit less the mean over the classes.</p>
{texts}
</body></html>
"""
