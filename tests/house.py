"""What a reader meets, counted: python -m tests.house

Frames from the classifier's command to the arithmetic of direct summation, functions entered in one
loss of a language model, modules that the command imports, and the lines of each room, each beside
its limit. Exit status 1 if one is exceeded.
"""

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(f"{ROOT / name}/" for name in ("minisum", "train", "data"))

FRAMES, FUNCTIONS, MODULES = 8, 25, 50
LINES = {
    "minisum/tiny/classifier.py": 130,
    "minisum/tiny/language_model.py": 190,
    "minisum/ops": 1300,
    "minisum/fast": 1700,
    "minisum/models": 1500,
    "train": 6000,
    "data": 1960,
}
# Files and rooms that came after these limits were set: each has a limit of its own and is not
# counted in the room around it.
LATER = {
    "train/__main__.py": 50,
    "train/rivals.py": 130,
    "train/forecast_baselines.py": 90,
    "train/forecast_files.py": 70,
    "train/analyze/heads.py": 90,
    "train/run/comparison.py": 40,
    "minisum/models/bag.py": 70,
    "minisum/models/any_length.py": 20,
    "minisum/models/series_baselines.py": 90,
    "minisum/ops/rate_reduction.py": 80,
    "train/bench/training.py": 120,
    "train/bench/pytorch_training.py": 90,
    "minisum/fast/decayed_products.py": 70,
    "minisum/fast/cuda/precision.py": 70,
    "minisum/fast/cuda/running.py": 20,
    "minisum/fast/cuda/passes.py": 60,
    "minisum/fast/cuda/sums.py": 30,
    "minisum/fast/cuda/decayed.py": 40,
    "minisum/fast/cuda/fused_attention.py": 70,
    "data/generated/state_tracking.py": 120,
    "data/generated/copying.py": 80,
    "train/compare/sequences.py": 230,
    "train/compare/drawing.py": 70,
    "train/compare/recall.py": 160,
    "minisum/ops/window.py": 50,
    "minisum/ops/feature_maps.py": 140,
    "minisum/ops/power_maps.py": 120,
    "minisum/ops/distillation.py": 40,
    "train/transfer/lessons.py": 50,
    "minisum/ops/state_space.py": 60,
    "minisum/ops/both_ways.py": 90,
    "minisum/ops/decaying_softmax.py": 80,
    "minisum/fast/wkv_scan.py": 50,
    "minisum/ops/slots.py": 60,
    "minisum/ops/exponential_gates.py": 110,
    "minisum/fast/exponential_gates.py": 60,
    "minisum/ops/rectified.py": 40,
    "minisum/fast/blocked_rectified.py": 60,
    "minisum/ops/latents.py": 70,
    "minisum/fast/latent_scan.py": 50,
    "minisum/ops/log_linear.py": 80,
    "minisum/fast/log_linear_chunks.py": 130,
    "minisum/fast/chunked_slots.py": 80,
    "minisum/fast/pieces_of_scan.py": 80,
    "minisum/fast/blocked_window.py": 100,
    "minisum/runs": 830,
    "minisum/runs/explanation.py": 80,
    "minisum/text": 620,
    "minisum/columns.py": 110,
    "minisum/files.py": 270,
    "minisum/runs/schema.py": 180,
    "data/reading/times.py": 110,
    "train/run/children.py": 180,
    "minisum/models/in_context.py": 250,
    "train/icl": 790,
    "minisum/__main__.py": 40,
    "data/reading/folder.py": 30,
    "data/reading/cells.py": 90,
    "data/reading/encodings.py": 70,
    "data/sets/user_sets.py": 80,
    "train/write.py": 110,
    "minisum/models/bert.py": 100,
    "minisum/models/pretrained.py": 160,
    "minisum/text/wordpieces.py": 30,
    "train/texts.py": 50,
    "train/transfer": 420,
    "train/run/answers.py": 230,
    "train/run/scores.py": 120,
    "train/run/curves.py": 90,
    "train/run/lines.py": 70,
    "train/run/tables.py": 60,
    "train/run/sweeps.py": 50,
    "train/run/own_data.py": 130,
    "train/run/cautions.py": 30,
    "train/run/finished.py": 50,
    "train/page": 70,
    "train/page/of_run.py": 150,
    "train/page/of_library.py": 100,
    "train/page/laboratory.py": 230,
}


def frames():
    """[file:function] from the command's main to the arithmetic of direct summation."""
    from train import classifier

    longest = []

    def watch(frame, event, _):
        """At each call of C code in the op's own frame: the project's frames above it."""
        if event != "c_call" or "summation" not in frame.f_code.co_name:
            return
        if not frame.f_code.co_filename.startswith(PACKAGES[0]):
            return
        above = project_frames(frame)
        if threading.current_thread() is not threading.main_thread():
            waiting = sys._current_frames()[threading.main_thread().ident]
            above = project_frames(waiting) + above
        if len(above) > len(longest) and any(name.endswith(":loss") for name in above):
            longest[:] = above

    flags = ["--epochs", "1", "--width", "8"]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        data = Path(folder, "rows.csv")
        data.write_text("text,label\n" + "".join(f"word{i} text,{i % 4}\n" for i in range(200)))
        threading.setprofile(watch)
        sys.setprofile(watch)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                status = classifier.main(
                    classifier.Classification,
                    [*flags, "--data", str(data), "--out", f"{folder}/run"],
                )
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert status == 0
    return longest


def project_frames(frame):
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGES) and code.co_name != "<module>":
            found.append(f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_name}")
        frame = frame.f_back
    return found[::-1]


def functions():
    """[file:function] entered in one loss of a language model of two summation layers."""
    from minisum.models.language_model import LanguageModel
    from minisum.params import Params

    model = LanguageModel(vocab=11, width=8, layers="summation*2", max_len=6)
    params = Params.from_arrays(model.init(np.random.default_rng(0)))
    ids = np.arange(12).reshape(2, 6) % 11
    batch = {"ids": ids, "targets": ids}
    model.loss(params, batch, 12)  # modules that load on first use
    entered = {}

    def watch(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGES):
            entered[code] = f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_name}"

    sys.setprofile(watch)
    try:
        model.loss(params, batch, 12)
    finally:
        sys.setprofile(None)
    return sorted(entered.values())


def modules():
    """The project's modules that importing the classifier's command loads."""
    program = (
        "import sys, train.classifier\n"
        "print(*sorted(m for m in sys.modules"
        " if m.partition('.')[0] in ('minisum', 'train', 'data')))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.split()


def lines(room):
    """Lines of the Python files in a folder of the project, or of one file, but for LATER ones."""
    path = ROOT / room
    files = path.rglob("*.py") if path.is_dir() else path.parent.glob(path.name)
    apart = [ROOT / later for later in LATER if later.startswith(f"{room}/")]
    counted = [f for f in files if not any(f == room or room in f.parents for room in apart)]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in counted)


def counts():
    """(what, how many, limit, the things that were counted) of everything."""
    yield "frames from the command to direct summation", *listed(frames(), FRAMES)
    yield "functions in one loss of a language model", *listed(functions(), FUNCTIONS)
    yield "modules that the classifier's command imports", *listed(modules(), MODULES)
    for room, limit in (LINES | LATER).items():
        yield f"lines in {room}", lines(room), limit, []


def listed(things, limit):
    return len(things), limit, things


def main():
    exceeded = False
    for what, count, limit, things in counts():
        exceeded |= count > limit
        mark = "  exceeded" if count > limit else ""
        print(f"{what:<48}{count:>6,}  at most {limit:,}{mark}")
        if "--list" in sys.argv:
            print(*(f"    {thing}" for thing in things), sep="\n")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
