"""What every `python -m train.TASK` does: read the flags, claim a folder, train, answer for errors.

Exit status: 0 done, 2 the input cannot be used (one sentence on standard error), 130 and 143
stopped by SIGINT and SIGTERM with the state saved.
"""

import dataclasses
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np

from minisum import backend
from minisum.errors import UserError
from train.loop import train
from train.run import group as parallel
from train.run.folder import RunFolder, new_path
from train.run.options import flag, from_flags, from_run, parser_for
from train.run.replica import dismiss, follow
from train.run.report import Report, emit, silence
from train.run.signals import Interrupted

# Flags of the command rather than of the run, so they are not part of its config.
COMMAND_FLAGS = ("out", "resume", "predict")


@dataclasses.dataclass(frozen=True)
class Command:
    """One task's part in the command line."""

    task: str  # "classifier"
    description: str
    config_class: type
    load: object  # (config, folder, resume) -> Task, also with save(folder) and with_mixer(name)
    predict: object = None  # (folder, config) -> None, reads standard input
    predict_help: str = (
        "read texts from standard input, one a line, and print what the run in DIR says"
    )

    @property
    def program(self):
        return f"python -m train.{self.task}"


def main(command, arguments=None):
    """Run `command` on `arguments` (default: those of the process); return the exit status."""

    def work():
        given = vars(build_parser(command).parse_args(arguments))
        chosen = {name: given.pop(name, None) for name in COMMAND_FLAGS}
        if chosen["predict"] is not None:
            predict(command, chosen, given)
        else:
            run(command, chosen, given)

    return guarded(work)


def guarded(work):
    """Call work(); tell in one sentence what the user can mend. Returns the exit status.

    Of processes that were started together rank 0 does the work, with the others' help.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a name that the locale cannot spell must not end a run
            stream.reconfigure(errors="backslashreplace")
    status = 1
    try:
        group = parallel.group()
    except UserError as error:
        return refuse(error)
    if group.rank:
        warnings.simplefilter("ignore", RuntimeWarning)  # as `run` does
        return follow(group)
    try:
        status = answered(work)
    finally:
        dismiss(group, status)
    return status


def answered(work):
    """Call work() and return the exit status, with a sentence if it failed."""
    try:
        work()
    except UserError as error:
        return refuse(error)
    except Interrupted as stop:
        emit(sys.stderr, f"{stop}: the state is saved; to go on: {stop.go_on}")
        return stop.status
    except KeyboardInterrupt:
        emit(sys.stderr, "interrupted")
        return 130
    except BrokenPipeError:
        silence(sys.stdout)
        return 141
    except OSError as error:
        return refuse(error)
    except MemoryError as error:
        emit(sys.stderr, f"error: not enough memory for a run of this size ({error})")
        return 2
    return 0


def refuse(error):
    """Say what is wrong on one line, also with a line break in a name; return the exit status."""
    sentence = str(error).replace("\n", "\\n")
    emit(sys.stderr, f"error: {sentence}")
    return 2


def build_parser(command):
    parser = parser_for(command.config_class, command.program, command.description)
    group = parser.add_argument_group("command")
    group.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the run's files (default: runs/TASK-DATASET-MIXER-TIME)",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, with its own settings"
    )
    if command.predict:
        group.add_argument(
            "--predict",
            metavar="DIR",
            help=command.predict_help,
        )
    return parser


def run(command, chosen, given):
    """Train, or go on training, in the folder that was chosen."""
    report = Report()
    resume, out = bool(chosen["resume"]), chosen["out"]
    if out == "":
        raise UserError("--out is empty: name a folder")
    stored = {}
    if resume:
        if out is None:
            raise UserError("--resume needs --out DIR: the folder of the run to go on with")
        config, stored = from_run(command.config_class, command.task, out, given)
        if stored.get("ranks", 1) != parallel.group().size and "threads" not in given:
            config = dataclasses.replace(config, threads=None)
    else:
        config = from_flags(command.config_class, given)
        name = config.dataset if config.data is None else Path(config.data).name.split(".")[0]
        out = out or new_path("runs", f"{command.task}-{name}-{config.mixer}")
    config = settled(config)
    folder = RunFolder(out)
    with folder.claimed(), warnings.catch_warnings():
        # The loop looks for overflow itself, and names the batch.
        warnings.simplefilter("ignore", RuntimeWarning)
        if not resume:
            folder.refuse_if_used()
        report.say(f"run in {folder}")
        task = command.load(config, folder, resume)
        if resume and stored["data_sha256"] != task.data_sha256:
            raise UserError(
                f"the data of the run in {folder} has changed since (sha256 "
                f"{stored['data_sha256'][:12]} then, {task.data_sha256[:12]} now): it cannot go on"
            )
        if resume and engine(stored) != engine(identity(task)):
            report.warn(
                f"the run began on {engine(stored)} and goes on with {engine(identity(task))}: "
                "it stays the same to rounding, not to the bit"
            )
        begin(task, folder, resume)
        try:
            if config.mixer == "all":
                compare(task, folder, report, resume)
            else:
                report.result(train(task, folder, report, resume), folder)
        except Interrupted as stop:
            program = parallel.group().started(command.program)
            stop.go_on = f"{program} --resume --out {shlex.quote(str(out))}"
            raise


def begin(task, folder, resume):
    """Write down what the run is. With config.json in it, a folder holds a run."""
    if not (resume and folder.tokenizer.exists()):
        task.save(folder.path)
    folder.write_json(folder.config, identity(task))


def identity(task):
    """The content of config.json."""
    what = {"task": task.name, "data_sha256": task.data_sha256}
    return what | task.config.to_dict() | {"ranks": parallel.group().size}


def engine(stored):
    """What decides the order of sums, in words; from the content of config.json."""
    ranks = stored.get("ranks", 1)  # a run may be older than this key
    threads = f"{stored['threads']} thread" + "s" * (stored["threads"] != 1)
    return threads + f" in each of {ranks} processes" * (ranks != 1)


def compare(task, folder, report, resume):
    """Train every mixer under the settings of `task`, each in a folder of its own."""
    results = []
    for mixer in task.rivals:
        part = RunFolder(folder.path / mixer)
        with part.claimed():
            if not resume:
                part.refuse_if_used()
            begun = part.config.exists()
            variant = task.with_mixer(mixer)
            begin(variant, part, begun)
            results.append(train(variant, part, report, begun))
            report.result(results[-1], part)
    folder.write_json(folder.path / "comparison.json", results)
    report.comparison(results, task.shown)


def predict(command, chosen, given):
    """Answer standard input with the run in --predict DIR, on this machine's terms."""
    folder = chosen["predict"]
    for name in [*given, *(name for name in ("out", "resume") if chosen[name])]:
        if name not in ("backend", "threads", "batch_size"):
            raise UserError(f"{flag(name)} has no meaning with --predict: the run has its settings")
    config, _ = from_run(command.config_class, command.task, folder, {})
    if config.mixer == "all":
        raise UserError(f"{folder} compares several mixers: choose one of the folders in it")
    here = {"backend": "numpy", "threads": None, **given}
    config = dataclasses.replace(config, **here)
    config.check()
    command.predict(RunFolder(folder), settled(config))


def settled(config):
    """The config with the thread count filled in. UserError if the backend is missing.

    The threads decide the order of sums, so their number is part of what config.json keeps.
    """
    on_host = backend.get(config.backend) is np
    threads = config.threads or (cores() if on_host else 1)
    return dataclasses.replace(config, threads=threads)


def cores():
    """How many cores this process may use: its share, if others of its group are on this host."""
    neighbours = parallel.group().neighbours
    usable = set().union(*neighbours)
    # Two hyperthreads share one core's vector units: count cores.
    siblings = set()
    for cpu in usable:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(path.read_text() if path.exists() else cpu)
    return max(1, len(siblings) // len(neighbours))
