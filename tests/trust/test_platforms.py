"""Other machines, as far as one can play them: locales, paths, closed pipes, a broken CuPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
longer = pytest.mark.skipif("MINISUM_FAULTS" not in os.environ, reason="MINISUM_FAULTS=1 runs it")
# Neither may be silently taken for UTF-8, as Python does with the C locale unless told not to.
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
}
PREDICTS = {
    "classifier": "a größer meow\n",
    "multimodal": '{"text": "größer", "size": 3, "rooms": 1}\n',
    "forecast": "time,tide,flow\n" + "".join(f"{i},{i % 8}.5,0.5\n" for i in range(20)),
}


def child(task, *arguments, input="", **more):
    command = [sys.executable, "-m", f"train.{task}", *(str(a) for a in arguments)]
    return subprocess.run(
        command, cwd=ROOT, input=input.encode(), capture_output=True, env=os.environ | more
    )


def flags(task, data, out):
    return ["--data", data, *tiny_runs.COMMON, *tiny_runs.SMALL[task], "--out", out]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """task -> (data, a finished run), both in a folder with blanks and letters of elsewhere."""
    found = {}
    for task in tiny_runs.TASKS:
        folder = tmp_path_factory.mktemp(f"{task} größe 数 ")
        data = tiny_runs.corpus(folder, task)
        text = data.read_text().replace("meow", "größer").replace('"cat"', '"Käse"')
        data.write_text(text, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "matplotlib.figure", None)  # pictures take long
            assert tiny_runs.train(task, data, folder / "a run") == 0
        found[task] = data, folder / "a run"
    return found


@pytest.mark.parametrize(
    "task, locale",
    [("classifier", "C"), ("causal", "C"),
     *(pytest.param(*other, marks=longer)
       for other in (("multimodal", "C"), ("forecast", "C"), ("classifier", "latin-1")))],
)  # fmt: skip
def test_locales_that_are_not_utf_8(runs, tmp_path, task, locale):
    """The same numbers as anywhere, and answers in UTF-8."""
    data, run = runs[task]
    out = tmp_path / "größer"
    shown = child(task, *flags(task, data, out), **LOCALES[locale])
    assert (shown.returncode, shown.stderr) == (0, b""), shown.stderr.decode("latin-1")
    own, other = (json.loads((f / "result.json").read_text("utf-8")) for f in (run, out))
    for name in own:
        if name.startswith("test_"):
            assert own[name] == other[name], name
    if task == "causal":
        shown = child(task, "--generate", "größer", "--tokens", 3, "--out", out, **LOCALES[locale])
        assert shown.stdout.startswith("größer".encode())
    else:
        shown = child(task, "--predict", out, input=PREDICTS[task], **LOCALES[locale])
    assert (shown.returncode, shown.stderr) == (0, b""), shown.stderr.decode("latin-1")
    assert shown.stdout.strip()
    shown = child(task, *flags(task, data.with_name("fehlt ü.csv"), tmp_path / "b"),
                  **LOCALES[locale])  # fmt: skip
    assert shown.returncode == 2 and shown.stderr.startswith(b"error: ")
    assert b"fehlt" in shown.stderr and shown.stderr.count(b"\n") == 1


def test_column_names_in_the_locale_of_c(tmp_path):
    """What a person types reaches the run as the UTF-8 that it was."""
    data = tmp_path / "rows.csv"
    rows = [f"Wort{i} {'miau' if i % 2 else 'wuff'},{i % 2},{i}\n" for i in range(60)]
    data.write_text("Überschrift,Größe,Nr\n" + "".join(rows), encoding="utf-8")
    here = [*flags("classifier", data, tmp_path / "run"), "--text-column", "Überschrift"]
    shown = child("classifier", *here, "--label-column", "Größe", **LOCALES["C"])
    assert (shown.returncode, shown.stderr) == (0, b"")
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert (config["text_column"], config["label_column"]) == ("Überschrift", "Größe")
    here = [*flags("multimodal", data, tmp_path / "other"), "--text-column", "Überschrift"]
    shown = child("multimodal", *here, "--numeric-columns", "Größe", "--target", "Nr",
                  **LOCALES["C"])  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_a_file_name_of_two_lines(capsys, tmp_path):
    missing = tmp_path / "a\nb.csv"
    assert tiny_runs.train("classifier", missing, tmp_path / "run") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and r"a\nb.csv does not exist" in errors


@posix
@pytest.mark.parametrize("end", ["| head -n 1", ">&-"])
@pytest.mark.parametrize(
    "task",
    ["classifier", "causal", "help",
     *(pytest.param(task, marks=longer) for task in ("multimodal", "forecast"))],
)  # fmt: skip
def test_a_reader_that_stops_reading(runs, tmp_path, task, end):
    """Of answers, of generated text, of --help: no traceback into a pipe that is closed."""
    if task == "help":
        line = ["classifier", "--help"]
    elif task == "causal":
        line = ["causal", "--generate", "größer", "--tokens", "3000", "--out", runs[task][1]]
    else:
        line = [task, "--predict", runs[task][1]]
    rows = tmp_path / "rows"
    rows.write_text(PREDICTS.get(task, "") * (1 if task == "forecast" else 3000), encoding="utf-8")
    errors = tmp_path / "errors"
    script = f'"$0" -m "train.$@" < "{rows}" 2> "{errors}" {end}'
    command = ["sh", "-c", script, sys.executable, *(str(word) for word in line)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60)
    said = errors.read_text()
    assert "Traceback" not in said and "Exception ignored" not in said
    if task == "help" and said:
        assert said.startswith("usage: ")  # argparse's place for it, without standard output
    else:
        assert said.count("\n") <= 1 and (not said or said.startswith("error: ")), said


@pytest.mark.parametrize(
    "content",
    ["raise ImportError('libcudart.so.12: cannot open shared object file')",
     pytest.param("def __getattr__(name):\n    raise RuntimeError('cudaErrorNoDevice')",
                  marks=longer)],
    ids=["import", "device"],
)  # fmt: skip
def test_a_broken_cupy(runs, tmp_path, content):
    """Training on the processor never meets it; asked for it, the run says what is wrong."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    data, _ = runs["classifier"]
    here = flags("classifier", data, tmp_path / "run")
    assert child("classifier", *here, PYTHONPATH=path).returncode == 0
    there = flags("classifier", data, tmp_path / "other")
    shown = child("classifier", *there, "--backend", "cupy", PYTHONPATH=path)
    errors = shown.stderr.decode()
    assert shown.returncode == 2 and errors.startswith("error: "), errors
    assert errors.count("\n") == 1 and "Traceback" not in errors and "cupy" in errors.lower()
    assert not (tmp_path / "other").exists()


def test_rows_are_answered_as_they_arrive(runs):
    """Standard input may never end: nothing waits for it, or keeps it on the disk."""
    command = [sys.executable, "-m", "train.multimodal", "--predict", str(runs["multimodal"][1])]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "--batch-size", "1"], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    ) as running:
        running.stdin.write("text,size,rooms\n")
        for size in (1, 9):
            running.stdin.write(f"a small house,{size},2\n")
            running.stdin.flush()
            assert 0 < float(running.stdout.readline()) < 200
        running.stdin.close()
        assert running.wait(timeout=20) == 0
