"""What a command does that fills a folder with cells: the same command goes on where it ended."""

import warnings

from minisum import machine
from train.command_line import run_with_exit_status
from train.run.folder import RunFolder, new_path
from train.run.options import about, add_out, parser_for
from train.run.report import Report


def main(name, config_class, page, resolve, work, arguments=None):
    """Do work(config, folder, report) as the flags say; return the exit status.

    name: of the command, after train. page: its docstring, for --help. resolve(flags by name) is
    the config. The folder is claimed. Status 2 is for unusable input, 130 for Ctrl-C.
    """

    def run():
        parser = parser_for(config_class, f"python -m train.{name}", about(page))
        kind = name.rpartition(".")[2]
        add_out(parser, f"folder of the results (default: runs/{kind}-...-TIME)")
        given = parser.given(arguments)
        out = given.pop("out", None)
        config = resolve(given)
        folder = RunFolder(out or new_path("runs", "-".join([kind, *config.label()])))
        report = Report()
        machine.keep_freed_memory()
        # An overflow shows in the loss, and its cell records the step.
        quiet = warnings.catch_warnings(action="ignore", category=RuntimeWarning)
        with folder.claimed(), quiet:
            try:
                work(config, folder, report)
            except KeyboardInterrupt:
                report.warn(
                    f"finished cells are kept; the same command with --out {folder} goes on"
                )
                raise

    with run_with_exit_status() as outcome:
        outcome.join_group().from_rank_0(run)
    return outcome.status
