"""CUDA's own recordings of steps and predictions, replayed. Needs MINISUM_TEST_BACKEND=cupy.

When something is recorded and when not is asked in test_recording.py.
"""

import numpy as np
import pytest
from conftest import XP
from test_kernels import assert_agree

from minisum import backend
from minisum.mixers import names
from minisum.models import classifier
from minisum.models.base import Model
from minisum.models.language_model import LanguageModel
from minisum.params import Params
from minisum.shards import Shards

pytestmark = pytest.mark.skipif(XP is np, reason="CUDA runs on a GPU: MINISUM_TEST_BACKEND=cupy")


def train(runner, params, grads, batch):
    loss = runner.loss_and_grads(params, grads, batch)
    return loss, grads.vector.copy()


def train_and_predict(runner, params, grads, batch):
    return *train(runner, params, grads, batch), runner.predict(params, batch)


def recorded_and_plain(model, arrays, batches, work):
    """What `work` returns for each batch by a recorder, and launch by launch; its recordings."""
    found = []
    for record in (True, False):
        params = Params.from_arrays(arrays, XP, "float64")
        grads, runner = params.zeros_like(), Shards(model, record=record)
        results = [work(runner, params, grads, backend.to_device(b, XP)) for b in batches]
        found.append([[backend.to_numpy(a) for a in arrays] for arrays in results])
        if record:
            entries = list(runner.recorder.recordings.values())
    return *found, entries


def assert_recorded(model, arrays, batches):
    replayed, plain, entries = recorded_and_plain(model, arrays, batches, train_and_predict)
    assert len(entries) == 2 and all(entries), "the work was not recorded"
    for found, wanted in zip(replayed, plain, strict=True):
        assert_agree(found, wanted, np.float64)


@pytest.mark.parametrize("mixer", classifier.MODELS)
def test_recorded_work_reads_each_batch_anew(mixer):
    """Four batches of one shape, and results that are read when all are done."""
    rng = np.random.default_rng(11)
    model = classifier.build(mixer, 50, 16, 5, 12, dropout=0.3, token_dropout=0.2)
    batches = []
    for _ in range(4):
        mask = np.arange(12) < rng.integers(1, 13, (8, 1))
        batch = {
            "ids": (rng.integers(1, 50, (8, 12)) * mask).astype(np.int32),
            "mask": mask,
            "targets": rng.integers(0, 5, 8).astype(np.int32),
        }
        batches.append(batch | model.noise(rng, batch))
    assert_recorded(model, model.init(rng), batches)


@pytest.mark.parametrize("mixer", names())
def test_recorded_language_models(mixer):
    """With every causal mixer, and a number of targets that changes from batch to batch."""
    rng = np.random.default_rng(12)
    model = LanguageModel(40, 16, f"{mixer},summation", 70, heads=2)
    batches = [
        {
            "ids": rng.integers(0, 40, (3, 70)).astype(np.int32),
            "targets": rng.integers(-1, 40, (3, 70)).astype(np.int32),
        }
        for _ in range(4)
    ]
    assert_recorded(model, model.init(rng), batches)


def test_what_cannot_be_recorded_runs_launch_by_launch():
    """A step that looks at its numbers, and one that copies from the host."""

    class Looking(Model):
        def count_targets(self, batch):
            return 1

        def activation_size(self, batch):
            return 1

        def loss(self, params, batch, total):
            worst = float(abs(batch["x"]).max())

            def back(grads):
                grads["w"] += worst

            return params["w"].sum() * worst, back

    class Copying(Looking):
        def loss(self, params, batch, total):
            host = XP.asarray(np.arange(3.0))
            return (host * params["w"]).sum(), lambda grads: None

    batches = [{"x": np.full((2, 3), float(i))} for i in range(1, 5)]
    for model in (Looking(), Copying()):
        replayed, plain, entries = recorded_and_plain(model, {"w": np.ones(3)}, batches, train)
        assert entries == [False]
        for found, wanted in zip(replayed, plain, strict=True):
            assert_agree(found, wanted, np.float64)
