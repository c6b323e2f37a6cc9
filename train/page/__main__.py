"""Make a web page of a trained classifier, or of the library: python -m train.page

    python -m train.page RUN --out page.html
    python -m train.page --laboratory --pyodide FOLDER_OR_URL --out DIR

The page of a RUN, a trained classifier, is one file that needs no network and
no server: type a text and see each token's exact share of the decision, the
probability of each class, each token's way through the layers, and how the
model was trained.

The laboratory is the library itself, run in the page by Pyodide (Python as
WebAssembly): train a small classifier and watch its loss, see its shares, and
check the gradient of an operation that you type. FOLDER holds a Pyodide release
and its NumPy wheel, and is copied to DIR; a URL is read by the page.
"""

import argparse
import sys

import minisum
from minisum.checkpoint import write_bytes
from minisum.errors import UserError
from train.command_line import run_with_exit_status
from train.page.of_run import page_of
from train.run.options import Parser, utf8
from train.run.report import emit


def parser():
    parser = Parser(
        prog="python -m train.page",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", metavar="RUN", nargs="?", help="folder of a classifier's run")
    add("--out", metavar="PATH", required=True, help="file of the page or folder of the laboratory")
    greeting = "Type or paste a text here."
    add("--text", type=utf8, default=greeting, help="the text that the page begins with")
    add("--laboratory", action="store_true", help="make the laboratory instead of a run's page")
    add("--pyodide", metavar="FOLDER_OR_URL", help="release of Pyodide, the laboratory's Python")
    return parser


def main(arguments=None):
    """Write the page; return the exit status."""
    with run_with_exit_status() as outcome:
        chosen = parser().parse_args(arguments)
        if chosen.laboratory != (chosen.run is None) or chosen.laboratory != bool(chosen.pyodide):
            raise UserError("give the folder of a RUN, or --laboratory and --pyodide")
        if chosen.laboratory:
            from train.page.of_library import write_laboratory

            emit(sys.stdout, write_laboratory(chosen.out, chosen.pyodide))
            return outcome.status
        run = minisum.load(chosen.run, task="classifier")
        page = page_of(run, chosen.run, chosen.text).encode("utf-8", "replace")
        write_bytes(chosen.out, page)
        emit(sys.stdout, f"{chosen.out} ({len(page) / 2**20:.1f} MiB): open it in a browser")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
