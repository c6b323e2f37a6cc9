"""Where a named corpus comes from: a folder of the user's first, then the hub.

The folder is $MINISUM_DATA/NAME with files train.jsonl.gz, test.parquet and so on, in the hub's
own columns.
"""

import contextlib
import functools
import http.client
import importlib.util
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.reading.rows import SUFFIXES, read_rows
from minisum.errors import UserError

HUB_PATIENCE = 8  # seconds for the hub's first answer


@dataclass(frozen=True)
class Source:
    """A corpus: its name here and in MINISUM_DATA, and its address on the hub."""

    name: str
    hub_id: str
    config: str | None = None
    revision: str | None = None


def read_split(source: Source, split: str) -> Iterator[dict]:
    """Rows of one split ("train", "validation", "test") as dicts.

    Raises UserError if it is in neither place, naming both and the reason the hub gave.
    """
    path = local_file(source.name, split)
    return read_rows(path) if path else _hub_rows(source, split)


def local_file(name: str, split: str) -> Path | None:
    """The file of a split under MINISUM_DATA, None without one.

    A folder that holds other splits of the corpus but not this one is refused: the rest would
    come from elsewhere and the two might not fit together.
    """
    root = os.environ.get("MINISUM_DATA")
    if not root:
        return None
    folder = Path(root) / name
    for suffix in SUFFIXES:
        for ending in ("", ".gz"):
            path = folder / f"{split}{suffix}{ending}"
            if path.is_file():
                return path
    for other in ("train", "test"):
        if any(folder.glob(f"{other}.*")):
            raise UserError(f"{folder} holds a {other} file but no {split} file.")
    return None


def _hub_rows(source, split):
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{_absence(source)}, and the hub needs 'pip install datasets'.")
    _announce(source.hub_id)
    with _hub_errors(source):
        import datasets

        table = datasets.load_dataset(
            source.hub_id, source.config, revision=source.revision, split=split
        )
    return _table_rows(source, table)


@contextlib.contextmanager
def _hub_errors(source):
    try:
        yield
    except Exception as error:
        # The library lets through the errors of every layer below it: HTTP, DNS, disk, parsing.
        reason = " ".join((str(error) or type(error).__name__).split())
        raise UserError(
            f"{_absence(source)}, and {source.hub_id} could not be had from the hub: {reason:.200}"
        ) from error


@functools.cache
def _announce(hub_id):
    """Say what is being waited for; without an answer from the hub, use its cache alone.

    The library by itself would try for half a minute, each time, before it looks there. It reads
    the variable as it is imported.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if "HF_HUB_OFFLINE" not in os.environ and not _answers(endpoint):
        os.environ["HF_HUB_OFFLINE"] = "1"
        _note(f"{endpoint} does not answer; looking for {hub_id} in the cache of the hub")
    else:
        _note(f"looking for {hub_id} on the hub ({endpoint}) and in its cache")


def _answers(endpoint):
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # an answer all the same
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # certificates are the library's business
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _note(text):
    if sys.stderr is not None:
        print(f"note: {text}", file=sys.stderr, flush=True)


def _table_rows(source, table):
    with _hub_errors(source):  # a damaged cache shows only here
        for batch in table.iter(batch_size=1024):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))


def _absence(source):
    root = os.environ.get("MINISUM_DATA")
    if not root:
        return f"{source.name} is not on this machine (MINISUM_DATA is not set)"
    return f"{source.name} is not in MINISUM_DATA ({Path(root) / source.name})"
