"""Each token's share of a classifier's decision.

If a model's features are a sum over tokens and its head is linear, every logit is the head's bias
plus one number per token: an exact attribution, where most models allow only estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisum.errors import require_known, visible

SHOWN = 20  # tokens of a printed explanation


@dataclass(frozen=True, repr=False)
class Explanation:
    """The attribution of one decision: logits = shares.sum(axis=0) + bias.

    tokens: the n tokens that were read, as the text spells them. shares (n, C): what each adds to
    the logit of each class. bias (C,): what the head adds without any. temperature: what the logits
    are divided by to give probabilities.
    """

    text: str
    classes: Sequence[Any]
    tokens: list[str]
    shares: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0

    @property
    def logits(self) -> np.ndarray:
        return self.shares.sum(axis=0) + self.bias

    @property
    def probabilities(self) -> np.ndarray:
        return softmax(self.logits / self.temperature)

    @property
    def label(self) -> Any:
        """The class that is predicted."""
        return self.classes[int(self.logits.argmax())]

    def __repr__(self) -> str:
        """A table of the largest shares in the predicted class, which add up with the rest."""
        shares = self.towards()
        largest = np.argsort(-abs(shares), kind="stable")[:SHOWN]
        rows = [(" ".join(visible(self.tokens[i]).split())[:40], shares[i]) for i in largest]
        if others := len(shares) - len(largest):
            rows.append((f"(others: {others:,})", shares.sum() - shares[largest].sum()))
        rows.append(("(bias)", self.bias[self.logits.argmax()] - self.bias.mean()))
        width = max(len(name) for name, _ in rows)
        title = f"{visible(str(self.label))}, probability {self.probabilities.max():.4f}"
        lines = [f"{name:<{width}}  {share:+8.4f}" for name, share in rows]
        return "\n".join([title, f"{'token':<{width}}     share", *lines])

    def towards(self, label: Any = None) -> np.ndarray:
        """(n,): what each token adds to the logit of a class (default: the predicted one), less
        its mean over all classes, since only differences of logits matter.

        UserError for a label that is not a class.
        """
        label, classes = self.label if label is None else label, list(self.classes)
        require_known("no class", label, classes)
        chosen = classes.index(label)
        return self.shares[:, chosen] - self.shares.mean(axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
