"""Reproduce the published tables: python -m train.reproduce --sets ag_news,20newsgroups

Every number is measured twice: under the published protocol, with the quirks of the released code,
and under an honest one with masks, the epoch chosen on validation rows, and several seeds. Sets
come from the folder MINISUM_DATA or the hub; one that is not available is listed with the reason.

A cell (set, mixer, protocol, seed) is a run of the task's own command as a process of its own. The
same command again does only what is missing, and goes on with runs that were stopped.
"""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

from minisum import backend
from minisum.errors import UserError
from minisum.files import inside, make_folder
from train.command_line import cores, run_with_exit_status
from train.reproduce import report as reproduce_report
from train.reproduce.quirks import TASKS, protocols_called
from train.reproduce.sets import cells, sets_called
from train.run import children
from train.run.cells import Cells, claim_settings, read_json
from train.run.folder import RunFolder
from train.run.options import N, Settings, about, add_out, option, parser_for
from train.run.report import Report, duration
from train.run.signals import Interrupted, interruptible

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("quick", "lm_tokenizer")  # settings of all cells of a folder
# Parts of a result that a cell keeps beside the test metrics.
KEPT = (
    "dataset", "device", "backend", "parameters", "epochs", "best_epoch", "epoch_chosen_by",
    "train_examples", "train_windows", "classes", "test_texts_in_train", "tokens_per_second",
    "seconds", "peak_memory_bytes", "versions", "data_sha256",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig(Settings):
    sets: str = option(
        "all", "comma-separated, in the order of their runs; or classification, language, "
        "multimodal, forecast, all", "what", metavar="NAMES",
    )  # fmt: skip
    protocols: str = option(
        "published,honest", "also published-QUIRK, which undoes one quirk, and published-all",
        "what", metavar="NAMES",
    )  # fmt: skip
    mixers: str = option(None, "these mixers only", "what", metavar="NAMES")
    seeds: int = option(3, "runs of every cell, seeds 0, 1, ...", "what", **N)
    lm_tokenizer: str = option(
        "hub:gpt2", "of the language models; bpe where the published one is not available", "what",
        metavar="KIND",
    )  # fmt: skip
    quick: bool = option(False, "tiny runs, only to test that everything works", "what")

    backend: str = option("numpy", "CPU or, with cupy, GPU", "running", choices=backend.NAMES)
    jobs: int = option(1, "runs at the same time", "running", **N, at_most=256)
    gpus: int = option(1, "GPUs that the runs take turns on", "running", **N, at_most=64)


# A cell at work in a process, since when.
Job = namedtuple("Job", "cell slot process started")


class Reproduction:
    """The cells in a claimed RunFolder: cells/NAME.json when done, runs/NAME while at work."""

    def __init__(self, config, cells, folder, report):
        self.config, self.cells, self.folder, self.report = config, cells, folder, report
        self.absent = {}  # set -> why its runs were refused before they began
        self.failed = {}  # cell -> why it ended
        for name in ("logs", "runs"):
            make_folder(inside(folder.path, name))

    def run(self):
        """Do what is missing, up to config.jobs cells at a time."""
        done = {cell for cell in self.cells if Cells(self.folder, cell.arguments).done(cell.name)}
        queue = [cell for cell in self.cells if cell not in done]
        self.report.say(f"{len(done)} of {len(self.cells)} runs are done")
        self.left = len(queue)
        free, running = list(range(self.config.jobs))[::-1], []
        with interruptible() as received:
            try:
                while queue or running:
                    if number := received():
                        raise Interrupted(number)
                    while queue and free:
                        cell = queue.pop(0)
                        if cell.set in self.absent:
                            self.left -= 1
                        else:
                            running.append(self.start(cell, free.pop()))
                    for job in [job for job in running if job.process.poll() is not None]:
                        running.remove(job)
                        free.append(job.slot)
                        self.finish(job)
                    time.sleep(0.05)
            except BaseException:  # a full disk, too: no run is left behind
                # Each saves its state; a second signal ends this process, and them with it.
                if os.name == "posix":  # a Windows console does it
                    children.pass_on([job.process.pid for job in running], signal.SIGTERM)
                for job in running:
                    if job.process.wait() == 0:
                        self.finish(job)
                raise

    def start(self, cell, slot):
        out = inside(self.folder.path, "runs", cell.name)
        command = [*command_of(cell), "--backend", self.config.backend, "--out", str(out)]
        if self.config.backend == "numpy":
            command += ["--threads", str(max(1, cores() // self.config.jobs))]
        if (out / "config.json").exists():
            command.append("--resume")
        # In a group of its own, so that Ctrl-C reaches it once, from here.
        group = 0 if os.name == "posix" else None
        with open(self.log(cell), "ab") as log:
            # From a parent that is gone standard input ends.
            streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
            environment = environment_of(slot, self.config.gpus)
            command = [*command[:2], children.__name__, *command[2:]]
            process = subprocess.Popen(command, **streams, env=environment, process_group=group)
        return Job(cell, slot, process, time.perf_counter())

    def finish(self, job):
        """Keep the result of a run that ended, or why it has none; write the tables."""
        cell, run = job.cell, inside(self.folder.path, "runs", job.cell.name)
        job.process.stdin.close()
        self.left -= 1
        summary = duration(time.perf_counter() - job.started)
        if job.process.returncode == 0:
            content = self.keep(cell, read_json(run / "result.json"))
            scores = [f"{name} {value:.4f}" for name, value in content["metrics"].items()]
            summary = ", ".join([*scores, summary])
        else:
            summary = self.reason(job)
            # A run writes config.json once it has its data.
            refused = job.process.returncode == 2 and not (run / "config.json").exists()
            if refused:
                self.absent[cell.set] = summary
            else:
                self.failed[cell.name] = summary
        self.report.say(f"{cell.name}: {summary} ({self.left} to go)")
        self.write()

    def keep(self, cell, result):
        content = {
            "set": cell.set, "mixer": cell.mixer, "protocol": cell.protocol, "seed": cell.seed,
            "command": written(cell), "at_once": self.config.jobs,
            "metrics": {name: result[f"test_{name}"] for name in TASKS[cell.task].metrics},
            **{name: result[name] for name in KEPT if name in result},
        }  # fmt: skip
        content = Cells(self.folder, cell.arguments).keep(cell.name, content)
        for state in inside(self.folder.path, "runs", cell.name).glob("*.safetensors"):
            state.unlink()  # a GPU machine's disk holds a few of them, not hundreds
        return content

    def reason(self, job):
        lines = self.log(job.cell).read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if job.process.returncode == 2 and errors:
            return errors[-1].removeprefix("error: ")
        return f"exit status {job.process.returncode}, see {self.log(job.cell)}"

    def log(self, cell):
        return inside(self.folder.path, "logs", f"{cell.name}.log")

    def write(self):
        """The tables of everything that the folder holds, of this call or of earlier ones."""
        done = [
            read_json(path) for path in sorted(inside(self.folder.path, "cells").glob("*.json"))
        ]
        settings = self.config.pick(*SHARED)
        return reproduce_report.write(self.folder, settings, done, self.absent, self.failed)


def command_of(cell):
    return [sys.executable, "-m", f"train.{cell.task}", *cell.arguments]


def written(cell):
    return shlex.join(["python", *command_of(cell)[1:]])


def environment_of(slot, gpus):
    """The environment of the run in a slot: this project on its path, and its GPU of several."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if gpus > 1:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else [str(i) for i in range(gpus)]
        environment["CUDA_VISIBLE_DEVICES"] = names[slot % min(len(names), gpus)]
    return environment


def list_cells(cells, folder, report):
    """Print what would be run, and how far each run is."""
    for cell in cells:
        done = (folder.path / "cells" / f"{cell.name}.json").exists()
        begun = (folder.path / "runs" / cell.name / "config.json").exists()
        status = "done" if done else "begun" if begun else "missing"
        report.say(f"{status:<8} {cell.name}")
        report.say(f"         {written(cell)}")
    report.say(f"{len(cells)} runs")


def main(arguments=None):
    """Return the exit status: 0, 2 for unusable input or a failed run, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with run_with_exit_status() as outcome:
        outcome.resume = shlex.join(["python", "-m", "train.reproduce", *arguments])
        outcome.join_group().from_rank_0(lambda: run(arguments))
    return outcome.status


def run(arguments):
    parser = parser_for(ReproduceConfig, "python -m train.reproduce", about(__doc__))
    group = add_out(parser, "folder of the cells and tables (default: runs/reproduce)")
    group.add_argument("--list", action="store_true", help="print the runs without running them")
    given = parser.given(arguments)
    listing, out = given.pop("list", False), given.pop("out", None)
    config = ReproduceConfig(**given)
    config.check()
    sets, protocols = sets_called(config.sets), protocols_called(config.protocols)
    asked = cells(sets, protocols, config.seeds, config.mixers, config.quick, config.lm_tokenizer)
    report = Report()
    folder = RunFolder(out or ("runs/reproduce-quick" if config.quick else "runs/reproduce"))
    if listing:
        list_cells(asked, folder, report)
        return
    backend.get(config.backend)  # a missing GPU is refused before a run is begun
    with folder.claimed():
        claim_settings(folder, config.pick(*SHARED))
        reproduction = Reproduction(config, asked, folder, report)
        try:
            reproduction.run()
        finally:
            report.say(reproduction.write())
            report.say(f"files in {folder}")
    if count := len(reproduction.failed):
        raise UserError(f"{count} of the runs failed; the same command tries them again")


if __name__ == "__main__":
    sys.exit(main())
