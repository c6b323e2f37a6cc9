"""Any set of the hub by its own name, USER/NAME or USER/NAME:CONFIG, with what splits it has.

As for the named sets, the folder $MINISUM_DATA/USER/NAME comes first.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from data.reading.rows import read_rows
from minisum.errors import UserError

# A copy of the hub's: its library knows these names of splits by many spellings.
SPLITS = ("train", "validation", "test")
ADDRESS = re.compile(r"\w[\w.-]*/\w[\w.-]*(:\w[\w.-]*)?")


def user_splits(name, find_local) -> dict:
    """split -> (rows, what errors are to call them) of the set at an address.

    find_local(address, split): the file of a split on this machine, or None. UserError if the set
    is not available or has no training split.
    """
    if not ADDRESS.fullmatch(name):
        raise UserError(f"{name!r} is no address on the hub: USER/NAME or USER/NAME:CONFIG")
    address, _, config = name.partition(":")
    local = {split: find_local(address, split) for split in SPLITS}
    found = {split: read_rows(path) for split, path in local.items() if path is not None}
    if not found:
        root = os.environ.get("MINISUM_DATA")
        where = f"in MINISUM_DATA ({Path(root, address)})" if root else "on this machine"
        found = hub_splits(address, config or None, f"{name} is not {where}")
    if "train" not in found:
        has = ", ".join(found) or "none"
        raise UserError(f"{name} has no split called train, to learn from; it has {has}")
    return {split: (found[split], f"{name} ({split})") for split in SPLITS if split in found}


def hub_splits(address, config, absence) -> dict[str, Iterator[dict]]:
    """split -> rows, of all splits of a set; see `data.reading.hub.hub_rows`.

    Where a column holds numbers of named classes, another called like it with _text has the names.
    """
    from data.reading.hub import in_a_sentence  # the network's modules, only when they are needed

    with in_a_sentence(address, absence) as datasets:
        tables = datasets.load_dataset(address, config)
        return {split: _named(address, absence, table) for split, table in tables.items()}


def _named(address, absence, table):
    from data.reading.hub import in_a_sentence, rows_of

    with in_a_sentence(address, absence):
        classes = {c: f.names for c, f in table.features.items() if hasattr(f, "names")}
        for row in rows_of(table):
            for column, names in classes.items():
                known = row[column] is not None and 0 <= row[column] < len(names)
                row.setdefault(f"{column}_text", names[row[column]] if known else row[column])
            yield row
