"""A finished run keeps what prediction needs: the state of training is several times as large.

--keep-state keeps that too, so that epochs can be added. A run without it is still the run that it
was, to say and to predict, by its metrics.jsonl and best.safetensors.
"""

import dataclasses
import math

from minisum import checkpoint, files
from minisum.errors import UserError
from minisum.params import Params


def drop_state(folder):
    """Delete the checkpoints of training in the RunFolder of a finished run."""
    for path in folder.path.glob("last*.safetensors"):
        path.unlink()


def restore(run):
    """Bring a train.loop.Run, whose state was dropped, to its end. UserError if it shall go on."""
    folder, shapes = run.folder, run.trainer.params.shapes
    records = [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in (files.read_lines(folder.metrics) if folder.metrics.exists() else [])
    ]
    history = [record for record in records if "train_loss" in record]
    logged = [record for record in records if "train_loss" not in record]
    run.at = dataclasses.replace(run.at, epoch=len(history) + 1, history=history, logged=logged)
    if not history or any(run.epochs()):
        raise UserError(
            f"{folder} is finished, after {len(history)} epochs, without the state to go on from: "
            "it predicts, but takes no more epochs; train anew, with --keep-state where some may "
            "be added later"
        )
    arrays, meta = checkpoint.load(folder.best)
    folder.require_origin(meta)
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise UserError(f"the model in {folder} is not the one that its config.json describes")
    run.best = Params.from_arrays({name: arrays[name] for name in shapes}).vector
