"""Settings of the whole suite.

MINISUM_TEST_BACKEND=cupy runs the operation, model and optimiser tests on a GPU.
HYPOTHESIS_PROFILE=long draws many more examples than the default, and unshrunk takes the first
that fails for the smallest.
MINISUM_UNWRITTEN=inf, nan or a number is what np.empty holds: whoever reads it shows.
"""

import gc
import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from minisum import backend

# A shell's background job ignores Ctrl-C, and nohup the end of the terminal; both would hand that
# on to the commands that tests start, which are those of a person at a terminal.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
os.environ.pop("PYTHONUNBUFFERED", None)  # or a missing flush would not show

settings.register_profile(
    "default",
    deadline=None,
    max_examples=25,
    derandomize=bool(os.environ.get("CI")),
    # A slow machine is no defect, and the first two come with parametrised tests.
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)
settings.register_profile("long", settings.get_profile("default"), max_examples=500)
settings.register_profile(
    "unshrunk", settings.get_profile("default"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def holding(make, value):
    """np.empty or np.empty_like with arrays of floats that hold `value`."""

    def made(*arguments, **options):
        array = make(*arguments, **options)
        if array.dtype.kind == "f":
            most = float(np.finfo(array.dtype).max)
            array.fill(min(value, most) if np.isfinite(value) else value)
        return array

    return made


if UNWRITTEN := os.environ.get("MINISUM_UNWRITTEN"):
    np.empty, np.empty_like = (
        holding(make, float(UNWRITTEN)) for make in (np.empty, np.empty_like)
    )

XP = backend.get(os.environ.get("MINISUM_TEST_BACKEND", "numpy"))


def pytest_collection_finish():
    """The thousands of tests stay until the end: no collection of garbage need look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def short_chunks(monkeypatch):
    """Borders of chunks inside texts of a few tokens, and both forms of softmax attention."""
    from forms import set_chunks

    set_chunks(monkeypatch, 3)


@pytest.fixture
def form(request, monkeypatch):
    """A case of op_cases.py, while calls of its op go to one form alone (see forms.every_form)."""
    from forms import only, set_chunks

    case, module = request.param
    set_chunks(monkeypatch, 2)
    with only(case.split()[0], module):
        yield case


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A small file for train.classifier (see cli_runs)."""
    from cli_runs import corpus_in

    return corpus_in(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def straight(corpus, tmp_path_factory):
    """A run on it that was never stopped, and that no test leaves changed."""
    from cli_runs import straight_run

    return straight_run(corpus, tmp_path_factory.mktemp("straight"))


@pytest.fixture(autouse=True)
def no_global_random_state():
    """Fail a test after which NumPy's global generator has moved."""
    before = np.random.get_state()[2]  # noqa: NPY002 (it is what must not move)
    yield
    after = np.random.get_state()[2]  # noqa: NPY002
    assert after == before, "something drew from NumPy's global generator"
