"""What the trained models of all tasks share."""

from typing import Any

import numpy as np

from minisum import backend
from minisum.params import Params
from minisum.shards import Shards


class Run:
    """A trained model and its preprocessing; `minisum.load` makes one from a folder.

    threads: how many to compute with (default: the caller's and NumPy's own). batch_size: how many
    inputs are computed together.
    """

    def __init__(
        self,
        model: Any,
        params: Params,
        tokenizer: Any,
        spec: dict[str, Any],
        threads: int | None = None,
        batch_size: int = 64,
    ):
        self.model, self.params, self.tokenizer, self.spec = model, params, tokenizer, spec
        self.batch_size = batch_size
        self.shards = Shards(model, threads=threads)

    @property
    def task(self) -> str:
        """The task: classifier, causal, multimodal or forecast."""
        return self.spec["task"]

    def outputs(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """The model's outputs for one batch of host arrays."""
        on_device = self.shards.to_device(batch, self.params.xp)
        return backend.to_numpy(self.shards.predict(self.params, on_device))

    def __repr__(self) -> str:
        model = f"{type(self.model).__name__} of {self.params.count:,} parameters"
        return f"<{type(self).__name__}: {model}>"
