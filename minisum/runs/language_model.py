"""A trained language model: text written token by token."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from minisum.runs.base import Run
from minisum.runs.generation import generate
from minisum.text import byte_tokens
from minisum.text.tokenizer import encode


class LanguageModelRun(Run):
    """A trained causal language model."""

    def generate(self, prompt: str = "", tokens: int = 200, **drawing: Any) -> str:
        """The continuation of `prompt`, `tokens` long, without the prompt; see `stream`."""
        return "".join(self.stream(prompt, tokens, **drawing))

    def stream(
        self,
        prompt: str = "",
        tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield the continuation piece by piece, as it is drawn.

        temperature: 0 takes the most probable token, 1 draws from the model's distribution. top_k:
        draw among that many of the most probable; top_p: among those that together have this
        probability. The same seed gives the same text.
        """
        read = encode(self.tokenizer, [prompt])[0]
        separator = byte_tokens.separator_id(self.tokenizer)
        if not self.spec["text"]["rows"]:  # packed, a separator precedes every document
            read = np.append(separator, read)
        rng = np.random.default_rng(seed)
        forget_at = separator if self.spec["text"]["reset"] else None
        drawn = generate(self.model, self.params, read, rng, temperature, top_k, forget_at, top_p)
        text = byte_tokens.TextStream(self.tokenizer)
        return (text.read(token) for token in islice(drawn, tokens))
