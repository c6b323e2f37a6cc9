"""Measure the speed, compared with PyTorch: python -m train.bench

    python -m train.bench --quick          the first line alone
    python -m train.bench --out DIR        all lines; bench.json and bench.png in DIR

What is compared and measured is told in README.md beside this file.
"""

import dataclasses
import os
import sys
from pathlib import Path

from minisum import backend
from minisum.errors import UserError
from minisum.files import write_json
from train.bench.compare import Bench
from train.bench.lines import TABLE, curves_of, plot
from train.command_line import run_with_exit_status
from train.run.options import Parser, some_of
from train.run.tables import aligned

MODES = ("eager", "compiled", "reduce-overhead")


def parse(arguments):
    parser = Parser(prog="python -m train.bench", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="only the first comparison, in less than 40 seconds")
    add("--out", metavar="DIR", help="folder for bench.json and bench.png")
    add("--backend", choices=backend.NAMES, default="numpy", help="array library of minisum")
    add("--precision", choices=backend.PRECISIONS, default="float32", help="of products on a GPU")
    add("--only", metavar="NAME,...", help=f"only these comparisons: {', '.join(TABLE)}")
    add("--modes", metavar="NAME,...", help="PyTorch as eager, compiled, reduce-overhead (all)")
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="threads of both sides")
    add("--seconds", type=float, default=20.0, metavar="S", help="time per comparison")
    given = parser.parse_args(arguments)
    if given.threads < 1:
        raise UserError(f"--threads {given.threads}: it must be at least 1")
    return given


def run(arguments):
    given = parse(arguments)
    names = some_of(TABLE, given.only, "only") if given.only else list(TABLE)
    modes = some_of(MODES, given.modes, "modes") if given.modes else []
    if given.quick:
        names, given.seconds = ["step"], min(given.seconds, 5.0)
    bench = Bench(given.backend, given.threads, given.precision, modes, given.seconds)
    conditions = bench.conditions()
    for name, value in conditions.items():
        print(f"  {name:<18} {value}", flush=True)
    lines = []
    for name in names:
        for line in TABLE[name](bench):
            print(f"\n{line.what}: ours {line.ours}, theirs {line.theirs}")
            for note in line.notes:
                print(f"    {note}", flush=True)
            lines.append(line)
    titles = ["what", "ours", "theirs", "ratio", "target", "met?"]
    print("", *aligned([titles, *(line.cells() for line in lines)]), sep="\n")
    if given.out:
        save(Path(given.out), arguments, conditions, lines)


def save(folder, arguments, conditions, lines):
    folder.mkdir(parents=True, exist_ok=True)
    records = [dataclasses.asdict(line) | {"met": line.met} for line in lines]
    content = {"arguments": arguments, "machine": conditions, "lines": records}
    write_json(folder / "bench.json", content)
    print(f"\nwrote {folder / 'bench.json'}")
    if curves := curves_of(records):
        drawn = plot(folder / "bench.png", curves)
        print(f"wrote {folder / 'bench.png'}" if drawn else "no plot: pip install matplotlib")


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    with run_with_exit_status() as outcome:
        run(arguments)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
