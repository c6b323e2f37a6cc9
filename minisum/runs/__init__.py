"""Trained models in Python: `minisum.load("runs/NAME")`.

Needs what the run needs: safetensors, and tokenizers for texts.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from minisum.runs.estimator import TextClassifier as TextClassifier
from minisum.runs.reading import read_model

TASKS = {
    "classifier": "classifier.ClassifierRun",
    "causal": "language_model.LanguageModelRun",
    "multimodal": "tables.RegressorRun",
    "forecast": "tables.ForecasterRun",
}


def load(
    path: str | Path,
    backend: str = "numpy",
    threads: int | None = None,
    batch_size: int = 64,
    task: str | None = None,
) -> Any:
    """The trained model in the folder of a run: its best epoch.

    A classifier has `predict`, `predict_proba`, `classes` and `explain`; a language model
    `generate` and `stream`; a regression `predict`; a forecaster `forecast`. backend: "numpy", or
    "cupy" for a GPU. threads and batch_size: see `minisum.runs.base.Run`. task: refuse any other.
    UserError for a folder without a trained model, and for one that is damaged.
    """
    model, params, tokenizer, spec = read_model(path, task, backend)
    module, _, name = TASKS[spec["task"]].partition(".")
    kind = getattr(import_module(f"minisum.runs.{module}"), name)
    return kind(model, params, tokenizer, spec, threads=threads, batch_size=batch_size)
