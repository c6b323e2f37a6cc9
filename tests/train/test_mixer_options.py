"""Options behind the name of a mixer mean the same in every command that has --mixer."""

import sys

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import minisum
from minisum import checkpoint

TASKS = ("classifier", "causal", "forecast")
SIMPLETRON = "simpletron:output=True:scale=learned"


@pytest.mark.parametrize("task", TASKS)
def test_a_run_has_the_mixer_that_its_options_describe(task, tmp_path, monkeypatch):
    """SimpleTRON's output map and its factor of each head are in the weights of both layers."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # drawing takes most of the time
    data, out = tiny_runs.corpus(tmp_path, task), tmp_path / "run"
    more = ["--mixer", SIMPLETRON, "--layers", 2]
    assert tiny_runs.train(task, data, out, *more, "--epochs", 1) == 0
    arrays, _ = checkpoint.load(out / checkpoint.BEST)
    for layer in ("blocks.0.mixer", "blocks.1.mixer"):
        assert arrays[f"{layer}.scale"].shape == (2,) and f"{layer}.o.W" in arrays
        assert (arrays[f"{layer}.scale"] != 1).all()  # learned
    assert minisum.load(out).params.count == sum(array.size for array in arrays.values())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("mixer", "sentence"),
    [
        ("simpletron:scales=mean", "no option 'scales'; it has prefix_scale, scale, output"),
        ("simpletron:scale=half", "scale 'half': choose one of root, root_width, mean, learned"),
        ("linear_attention:feature_map=relo", "feature map 'relo' (did you mean 'relu'?)"),
        ("attention:dropout=0.5", "attention has no option 'dropout'"),
        ("simpletrom:scale=mean", "--mixer 'simpletrom:scale=mean': choose one of "),
    ],
)
def test_what_no_mixer_has_is_refused_before_anything_is_written(
    task, mixer, sentence, tmp_path, capsys
):
    data, out = tiny_runs.corpus(tmp_path, task), tmp_path / "run"
    assert tiny_runs.train(task, data, out, "--mixer", mixer) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not out.exists()
