"""A trained text classifier: classes, probabilities, and each token's share of the decision."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from minisum import backend
from minisum.errors import UserError
from minisum.models.bag import bag_shares
from minisum.params import Params
from minisum.runs.base import Run
from minisum.runs.explanation import Explanation, softmax
from minisum.text.batches import Ragged, batches
from minisum.text.tokenizer import PAD, UNKNOWN_ID, TextReader


class ClassifierRun(Run):
    """A trained classifier of texts."""

    def __init__(
        self, model: Any, params: Params, tokenizer: Any, spec: dict[str, Any], **settings: Any
    ):
        super().__init__(model, params, tokenizer, spec, **settings)
        self.reader = TextReader(tokenizer, **spec["text"])

    @property
    def temperature(self) -> float:
        """What logits are divided by: 1, or what --calibrate found on the validation texts."""
        return self.spec.get("temperature", 1.0)

    @property
    def classes(self) -> list[Any]:
        """The class names, in the order of the columns of `predict_proba`."""
        return self.spec["class_names"]

    def logits(self, texts: Iterable[str]) -> np.ndarray:
        """(N, C) float64: the score of each class for each text."""
        return self.logits_of(self.reader.encode(several(texts)))

    def logits_of(self, encoded: Ragged) -> np.ndarray:
        """The same for texts that the reader has encoded."""
        logits = np.empty((len(encoded), len(self.classes)))
        by_length = np.argsort(encoded.lengths, kind="stable")  # little padding a batch
        for rows in batches(by_length, self.batch_size):
            logits[rows] = self.outputs(self.reader.batch(encoded.take(rows)))
        return logits

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """(N, C): the probability of each class for each text."""
        return softmax(self.logits(texts) / self.temperature)

    def predict(self, texts: Iterable[str]) -> list[Any]:
        """The likeliest class of each text."""
        texts, found = iter(several(texts)), []
        while group := list(islice(texts, 1024)):  # their logits take memory, of many classes
            found += [self.classes[best] for best in self.logits(group).argmax(axis=1)]
        return found

    def explain(self, text: str) -> Explanation:
        """What each token of a text adds to the decision, exactly.

        UserError for a model that does not sum its tokens, and for a list of texts.
        """
        if not isinstance(text, str):
            raise UserError(f"one text is explained at a time, not a {type(text).__name__}")
        encoded = self.reader.encode([text])
        batch = self.reader.batch(encoded)
        ids, mask = batch["ids"][0], batch["mask"][0]
        shares = contributions(self.model, self.params, ids, mask)
        spelled = np.full(len(ids), PAD, dtype=object)
        spelled[mask] = self.spelled(text, int(mask.sum()))
        shown = mask if self.model.masked else np.ones(len(ids), bool)
        bias = backend.to_numpy(self.params["head"]["b"])
        bias = np.pad(bias, (len(self.classes) - len(bias), 0))  # two may share a logit
        tokens = list(spelled[shown])
        return Explanation(text, self.classes, tokens, shares[shown], bias, self.temperature)

    def spelled(self, text: str, count: int) -> list[str]:
        """The `count` tokens of a text that the model reads, as the text spells them."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        tokens = [
            text[start:end]
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if not (self.reader.drop_unknown and token == UNKNOWN_ID)
        ]
        return tokens[len(tokens) - count :] if self.reader.padding == "left" else tokens[:count]


def contributions(model: Any, params: Params, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n, C): what each token of a text adds to each class's logit; the bias is the rest.

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
    parts = np.where(mask[:, None], parts, 0) if model.masked else parts
    if model.bag_rows:
        real = xp.asarray(mask)[None] if model.masked else None
        shares = bag_shares(params["bag"], xp.asarray(ids)[None], real, model.vocab)
        parts = parts + backend.to_numpy(shares[0])
    return np.pad(parts, ((0, 0), (model.classes - model.outputs, 0)))


def several(texts: Iterable[str]) -> list[str]:
    """A list of texts. UserError for anything else, a single string included."""
    if isinstance(texts, str):
        raise UserError("a list of texts is needed, not one text: put it in brackets")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise UserError(f"text {number} is not a text but of type {type(text).__name__}")
    return [str(text) for text in found]
