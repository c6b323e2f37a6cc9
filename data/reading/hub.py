"""Rows of a data set on the hub, by the `datasets` library."""

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

from minisum.errors import UserError, missing

HUB_PATIENCE = 8  # seconds for the hub's first answer


def hub_rows(address, config, revision, split, absence) -> Iterator[dict]:
    """Yield the rows of one split of the set at `address` ("owner/name") as dicts.

    `absence` says why the hub is asked at all, and begins the UserError if the set cannot be
    loaded from it either.
    """
    with in_a_sentence(address, absence) as datasets:
        table = datasets.load_dataset(address, config, revision=revision, split=split)
        yield from rows_of(table)


def rows_of(table):
    for batch in table.iter(batch_size=1024):  # a damaged cache shows only here
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


@contextlib.contextmanager
def in_a_sentence(address, absence):
    """Yield the library. Whatever goes wrong is a UserError that begins with `absence`."""
    if importlib.util.find_spec("datasets") is None:
        raise missing(f"{absence}, and the hub needs datasets", "datasets")
    _announce(address)
    try:
        import datasets

        yield datasets
    except Exception as error:
        # The library lets through the errors of every layer below it: HTTP, DNS, disk, parsing.
        reason = " ".join((str(error) or type(error).__name__).split())
        raise UserError(
            f"{absence}, and {address} could not be loaded from the hub: {reason:.200}"
        ) from error


@functools.cache
def _announce(address):
    """Tell the user what is being waited for; if the hub does not answer, use its cache alone.

    The library by itself would try for half a minute, each time, before it looks there. It reads
    the variable when it is imported.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    note = f"looking for {address} on the hub ({endpoint}) and in its cache"
    if "HF_HUB_OFFLINE" not in os.environ and not _answers(endpoint):
        os.environ["HF_HUB_OFFLINE"] = "1"
        note = f"{endpoint} does not answer; looking for {address} in the cache of the hub"
    if sys.stderr is not None:
        print(f"note: {note}", file=sys.stderr, flush=True)


def _answers(endpoint):
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # an answer all the same
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # certificates are left to the library
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True
