"""A training loop in one function, for fitting in memory: no folder, no ranks, no resuming.

It takes the same steps as `python -m train.TASK` with the same random numbers: with the same data
and settings both end with the same parameters, bit for bit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minisum import backend
from minisum.errors import UserError
from minisum.optim import Adam, Average, best_epoch
from minisum.params import Params
from minisum.shards import Shards
from minisum.text.batches import batches, epoch_order


def fit(
    model: Any,
    size: int,
    batch_of: Callable[[np.ndarray], dict[str, np.ndarray]],
    score: Callable[[Params, Shards], tuple[float, float]] | None = None,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    ema: float = 0.0,
    patience: int = 0,
    seed: int = 0,
    threads: int | None = None,
    backend_name: str = "numpy",
) -> tuple[Params, list[dict[str, float]]]:
    """The parameters after the epoch of the best score, and a record of each epoch.

    size: training examples; batch_of(rows) gives a batch of them. score(params, shards):
    (score, loss), by which `best_epoch` chooses; without it the last epoch is kept. ema: decay of
    the running average of the parameters that is scored and kept. patience: stop so many epochs
    after the best, 0 never. UserError if the loss is not finite.
    """
    xp = backend.get(backend_name)
    params = Params.from_arrays(model.init(np.random.default_rng([seed, 0])), xp=xp)
    grads, shards = params.zeros_like(), Shards(model, threads=threads)
    adam = Adam(params, workers=shards.workers)
    average = Average(params, ema) if ema else None
    candidate, best = average.params if average else params, params.zeros_like()
    history: list[dict[str, float]] = []
    for epoch in range(1, epochs + 1):
        losses = []
        for step, rows in enumerate(batches(epoch_order(size, seed, epoch), batch_size), start=1):
            batch = batch_of(rows)
            batch |= model.noise(np.random.default_rng([seed, epoch, step]), batch)
            losses.append(shards.loss_and_grads(params, grads, shards.to_device(batch, xp)))
            adam.step(grads, lr, average)
        loss = float(np.mean([float(backend.to_numpy(one)) for one in losses]))
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} in epoch {epoch}: a lower lr may help")
        record = {"epoch": epoch, "train_loss": loss}
        if score is not None:
            record["val_score"], record["val_loss"] = score(candidate, shards)
        history.append(record)
        scored = [(one["val_score"], one["val_loss"]) for one in history if score]
        best_at = best_epoch(scored) + 1 if scored else epoch
        if best_at == epoch:
            best.vector[...] = candidate.vector
        if patience and epoch - best_at >= patience:
            break
    return best, history
