"""What every `python -m train.TASK` does: read the flags, claim a folder, train, report errors.

Exit status: 0 done, 2 unusable input (one sentence on standard error), 130 and 143 stopped by
SIGINT and SIGTERM with the state saved (129: SIGHUP).
"""

import contextlib
import dataclasses
import functools
import shlex
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

import minisum
from minisum import checkpoint, files, machine
from minisum.errors import UserError
from train.loop import train
from train.run import group as process_group
from train.run.folder import RunFolder, new_path
from train.run.options import add_out, flag, from_flags, from_run, parser_for
from train.run.report import Report, emit, silence
from train.run.signals import Interrupted, interruptible, keyboard_interrupts, raise_swallowed

# Flags of the command rather than of the run, so they are not part of its config.
PREDICT_FLAGS = ("format", "write", "top_k")
COMMAND_FLAGS = ("out", "resume", "predict", *PREDICT_FLAGS)


def main(command, arguments=None):
    """Train or predict as `arguments` (default: those of the process) say; return the exit status.

    command: a subclass of train.run.task.Task.
    """
    with run_with_exit_status() as outcome, contextlib.ExitStack() as held:
        group = outcome.join_group()
        report = Report(silent=group.rank > 0)
        # The loop looks for overflow itself, and names the batch.
        quiet = warnings.catch_warnings(action="ignore", category=RuntimeWarning)
        held.enter_context(quiet)
        # Rank 0 reads flags and data and owns the folder; the others get what it has read.
        prepared = group.from_rank_0(lambda: prepare(command, arguments, held, report))
        raise_swallowed()
        if prepared is None:
            return 0
        held.enter_context(interruptible())  # between two mixers, too
        task, folder, parts = prepared
        from train.run.finished import drop_state

        out = shlex.quote(str(folder))
        outcome.resume = f"{group.launcher(program(command))} --resume --out {out}"
        results = []
        for mixer, part, begun in parts:
            variant = task.with_mixer(mixer) if mixer else task
            whole = [(task, folder, True)] if mixer else []
            settings = functools.partial(begin, [*whole, (variant, part, begun)])
            results.append(train(variant, part, report, begun, settings))
            if not variant.config.keep_state:
                group.from_rank_0(lambda part=part: drop_state(part))
            if not mixer:
                report.result(results[-1], part)
        if len(parts) > 1 or len(task.baselines()) > 1:
            from train.run.comparison import comparison

            report.say("\n".join(["", *comparison(task, results)]))
        if len(parts) > 1:
            path = folder.path / "comparison.json"
            group.from_rank_0(lambda: files.write_json(path, results))
    return outcome.status


class Outcome:
    """How a command ends: its exit status, and the group whose ranks it ends."""

    status = 0
    group = process_group.ProcessGroup()
    resume = None  # the command that goes on after an interruption

    def join_group(self):
        self.group = process_group.group()
        return self.group


@contextlib.contextmanager
def run_with_exit_status():
    """Yield an Outcome. An error in here is reported, in one sentence if a user can mend it.

    On several ranks UserError and Interrupted are raised on all, and rank 0 reports them. Any other
    error is of one rank, while the others wait for it: that rank reports it and ends them all.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a name that the locale cannot spell must not end a run
            stream.reconfigure(errors="backslashreplace")
    outcome = Outcome()
    try:
        with keyboard_interrupts():
            yield outcome
            if not outcome.status:
                raise_swallowed()
    except UserError as error:
        outcome.status = 2
        if outcome.group.rank == 0:
            say_error(error)
    except Interrupted as stop:
        outcome.status = stop.status
        if outcome.group.rank == 0:
            emit(sys.stderr, f"{stop}: the state is saved; to go on: {outcome.resume}")
    except (KeyboardInterrupt, Exception) as error:
        group = outcome.group
        where = f"rank {group.rank} of {group.size}: " if group.size > 1 else ""
        if isinstance(error, KeyboardInterrupt):
            outcome.status = 130
            if group.rank == 0:
                emit(sys.stderr, "interrupted")
        elif isinstance(error, BrokenPipeError):
            outcome.status = 141
            silence(sys.stdout)
        elif sentence := process_group.in_a_sentence(error):
            outcome.status = 2
            say_error(f"{where}{sentence}")
        elif group.size == 1:
            raise
        else:
            outcome.status = 1
            traceback.print_exc()
        if group.size > 1:
            group.abort(outcome.status)
    finally:
        end_output(outcome)


def end_output(outcome):
    """Write what standard output still holds; where it cannot, nobody tries again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        if not (outcome.status or isinstance(error, BrokenPipeError)):
            outcome.status = 2
            say_error(error)


def say_error(error):
    """Print what is wrong on one line, also with a line break in a name."""
    sentence = str(error).replace("\n", "\\n")
    emit(sys.stderr, f"error: {sentence}")


def program(command):
    return f"python -m train.{command.name}"


def build_parser(command):
    parser = parser_for(command.config_class, program(command), command.description)
    group = add_out(parser, "folder for the run's files (default: runs/TASK-DATASET-MIXER-TIME)")
    group.add_argument(
        "--resume", action="store_true", help="continue the run in --out with its own settings"
    )
    if command.predict:
        from train.run.answers import add_flags

        add_flags(group, command)
    return parser


def prepare(command, arguments, held, report):
    """Everything before training: flags, folder, data. Predict instead, and return None, if asked.

    held: an ExitStack for the locks of the folders. Returns (task, its RunFolder, what to train:
    tuples of a mixer of --mixer all or None, a RunFolder, and whether a run has begun in it).
    """
    given = build_parser(command).given(arguments)
    chosen = {name: given.pop(name, None) for name in COMMAND_FLAGS}
    if chosen["predict"] is not None:
        predict(command, chosen, given)
        return None
    for name in PREDICT_FLAGS:
        if chosen[name] is not None:
            raise UserError(f"{flag(name)} belongs to --predict DIR, which is not given")
    resume = bool(chosen["resume"])
    config, stored, folder = read_settings(command, chosen, given)
    held.enter_context(folder.claimed())
    if not resume:
        folder.refuse_if_used()
    from train.run.cautions import cautions

    task = command.load(config, folder, resume)
    report.say(f"run in {folder}")
    for caution in cautions(task):
        report.warn(caution)
    if resume and stored["data_sha256"] != task.data_sha256:
        raise UserError(
            f"the data of the run in {folder} has changed (sha256 {stored['data_sha256'][:12]} "
            f"then, {task.data_sha256[:12]} now): it cannot go on"
        )
    if resume and engine(stored) != engine(identity(task)):
        report.warn(
            f"the run began on {engine(stored)} and goes on with {engine(identity(task))}: "
            "it stays the same to rounding, not to the bit"
        )
    if resume and task.config.schedule == "cosine" and stored["epochs"] != task.config.epochs:
        report.warn(
            f"the cosine of the learning rate now ends after {task.config.epochs} epochs, not "
            f"after {stored['epochs']}: no run from the start would have had these rates"
        )
    if task.config.mixer != "all":
        return task, folder, [(None, folder, resume)]
    parts = []
    for mixer in task.compared:
        part = RunFolder(files.inside(folder.path, mixer))
        held.enter_context(part.claimed())
        if not resume:
            part.refuse_if_used()
        parts.append((mixer, part, part.config.exists()))
    return task, folder, parts


def read_settings(command, chosen, given):
    """(config, content of config.json if the run is resumed, RunFolder)"""
    out, stored = chosen["out"], {}
    if chosen["resume"]:
        if out is None:
            raise UserError("--resume needs --out DIR: the folder of the run to go on with")
        config, stored = from_run(command.config_class, command.name, out, given)
        if config.data is not None and not Path(config.data).exists():
            raise UserError(f"{config.data} is not there any more: name its new place with --data")
        if stored.get("ranks", 1) != process_group.group().size and "threads" not in given:
            config = dataclasses.replace(config, threads=None)
    else:
        config = from_flags(command.config_class, given)
        name = Path(config.data or config.dataset).name.split(".")[0]
        out = out or new_path("runs", f"{command.name}-{name}-{config.mixer}".replace(":", "-"))
    return resolve_defaults(config), stored, RunFolder(out)


def begin(runs):
    """Write down what runs are: (task, folder, begun). A folder with a config.json holds a run."""
    from train.run.lines import mark_latest

    for task, folder, begun in runs:
        if not (begun and folder.tokenizer.exists()):
            task.save(folder.path)
        files.write_json(folder.config, identity(task), sealed=True)
        mark_latest(folder.path)


def identity(task):
    """The content of config.json."""
    what = {"format": checkpoint.FORMAT, "task": task.name, "data_sha256": task.data_sha256}
    how = {"ranks": process_group.group().size, "arithmetic": machine.arithmetic()}
    return what | dataclasses.asdict(task.config) | how


def engine(stored):
    """What decides the last bits, in words; from the content of config.json."""
    ranks = stored["ranks"]
    threads = f"{stored['threads']} thread" + "s" * (stored["threads"] != 1)
    group = f" in each of {ranks} processes" * (ranks != 1)
    return f"{threads}{group} by {stored.get('arithmetic')}"


def predict(command, chosen, given):
    """Answer with the run in --predict DIR, on this machine's settings."""
    for name in [*given, *(name for name in ("out", "resume") if chosen[name])]:
        if name not in ("backend", "threads", "batch_size", *command.predict_flags):
            raise UserError(f"{flag(name)} has no meaning with --predict: the run has its settings")
    of_data = ("data", "text_column", "separator", "encoding")
    flags = chosen | {name: given.pop(name, None) for name in of_data}
    here = resolve_defaults(from_flags(command.config_class, given))
    settings = here.pick("backend", "threads", "batch_size")
    command.predict(minisum.load(chosen["predict"], task=command.name, **settings), flags)


def resolve_defaults(config):
    """The config with the thread count filled in. UserError if the backend is missing.

    The threads decide the order of sums, so config.json keeps their number.
    """
    on_host = machine.backend_in(config.backend, config.precision) is np
    threads = config.threads or (cores() if on_host else 1)
    return dataclasses.replace(config, threads=threads)


def cores():
    """How many cores this process may use: divided with the others of its group on this host."""
    neighbours = process_group.group().neighbours
    return max(1, machine.cores(set().union(*neighbours)) // len(neighbours))
