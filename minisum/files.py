"""Files of this program: whole or not there, read within bounds, JSON sealed, one run a folder.

Whoever reads back what a run has written must not take a torn or edited file for what was measured.
Checkpoints carry a checksum of their own (minisum.checkpoint); JSON that is read back carries one
in its last entry, "sha256", of all the others. It shows damage, not forgery: a digest is no
signature.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
import time
from pathlib import Path

from minisum.errors import UserError

JSON_BYTES = 16 << 20
SEAL = "sha256"
# Seconds: a process that was killed a moment ago may still hold its lock.
LOCK_WAIT = 2.0


def write_bytes(path, data, previous=None):
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    previous: where the file that is at `path` now is kept, for one generation. A link at `path` is
    replaced, not followed. UserError if the file cannot be written (no room, no permission); what
    is at `path` is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        # "x": a link of this name, planted by another, is not written through.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and os.path.lexists(path):
            os.replace(path, previous)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_text(path, text):
    """Write `text` as UTF-8, whole or not at all; what UTF-8 cannot hold is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def make_folder(path):
    """Make the folder `path` and its parents, durably. OSError if that cannot be done."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder):
    """Make the names in a folder durable; Windows has no such call and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_bytes(path, at_most, first=None):
    """The content of a regular file of at most so many bytes, or its `first` ones.

    Raises OSError if it cannot be read, UserError if it is no regular file (a pipe would wait for
    ever, a device never end) or larger.
    """
    require_regular(path, os.stat(path), at_most)
    # A pipe that has taken the file's place must not keep us waiting either.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        size = require_regular(path, os.fstat(descriptor), at_most)
        return file.read(size if first is None else min(first, size))


def require_regular(path, status, at_most):
    """The size of a file. UserError if it is a pipe, device or folder, or too large."""
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file")
    if status.st_size > at_most:
        raise UserError(f"{path} is larger than {at_most:,} bytes, as no such file is")
    return status.st_size


def write_json(path, content, sealed=False):
    """Write JSON that every reader of JSON can read: a number that is not finite becomes null.

    sealed: with the digest that `read_json` asks for; `content` is a dict then.
    """
    content = finite(content)
    if sealed:
        content = content | {SEAL: digest(content)}
    # A file name that is not UTF-8 is written in JSON's own escapes.
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path, before=None):
    """The dict that `write_json` sealed in `path`, without its digest.

    before(content) may refuse a dict for a better reason than its digest.
    Raises FileNotFoundError, OSError if it cannot be read, UserError if it is damaged or edited.
    """
    data = read_bytes(path, JSON_BYTES)
    damaged = UserError(f"{path} is damaged or was edited: its checksum does not match")
    try:
        content = parse_json(data)
    except ValueError:
        raise damaged from None
    if not isinstance(content, dict):
        raise damaged
    if before is not None:
        before(content)
    if SEAL not in content:
        raise UserError(
            f"{path} has no checksum: it is of an earlier minisum or was edited; a model beside it "
            "still predicts, for all else train again"
        )
    if content.pop(SEAL) != digest(content):
        raise damaged
    return content


def write_lines(path, records):
    """Write dicts as JSON lines, each with a digest of itself and of the lines before it."""
    lines, before = [], ""
    for record in map(finite, records):
        before = digest([before, record])
        lines.append(json.dumps(record | {SEAL: before}, allow_nan=False) + "\n")
    write_text(path, "".join(lines))


def read_lines(path):
    """The dicts that `write_lines` wrote. UserError if one is damaged, edited or left out."""
    records, before = [], ""
    for number, line in enumerate(read_bytes(path, JSON_BYTES).splitlines(), start=1):
        try:
            record = parse_json(line)
            found = record.pop(SEAL, None)
        except (ValueError, AttributeError):
            record, found = None, None
        before = digest([before, record])
        if found != before:
            raise UserError(f"{path}, line {number}: it is damaged or was edited")
        records.append(record)
    return records


def parse_json(data):
    """The value in JSON bytes. ValueError for all that is none, too deep, or not finite."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("too deep") from None


def digest(content):
    """SHA-256 of a JSON-able value, whatever the order of its entries."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finite(value):
    """The value with None in the place of every number that JSON does not have."""
    if isinstance(value, dict):
        return {str(name): finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def claimed(folder):
    """Hold the lock of `folder`, made if it is missing, for this process.

    UserError if another process has it, or if it cannot be written. A folder that was made here and
    got no file is removed again.
    """
    new = not folder.exists()
    path = folder / ".lock"
    try:
        file = taken(path)
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error.strerror}") from None
    if file is None:
        raise UserError(f"another run is writing to {folder} now: choose another --out")
    with file:
        # Of a process that was killed as it wrote, here or into the cells of a comparison.
        for leftover in (*folder.glob("*.tmp"), *inside(folder, "cells").glob("*.tmp")):
            leftover.unlink()
        try:
            yield
        finally:
            if new and list(folder.iterdir()) == [path]:
                path.unlink()  # while it is held: whoever opened it before notices
                with contextlib.suppress(OSError):  # another has just put its own there
                    folder.rmdir()


def taken(path):
    """The locked file at `path`, None if another process holds it for longer than LOCK_WAIT."""
    end = time.monotonic() + LOCK_WAIT
    while True:
        with contextlib.suppress(FileNotFoundError):  # the folder was removed in between
            make_folder(path.parent)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)
            if try_lock(file) and is_at(path, file):
                return file
            file.close()
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def is_at(path, file):
    """Whether the open file is the one at `path`: a lock on a removed file excludes nobody."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def try_lock(file):
    """Take the exclusive lock of an open file without waiting; False if another holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def inside(folder, *names):
    """folder/name/..., the last of which need not exist. UserError if one of them is a link.

    What is written or deleted there would be somewhere else.
    """
    path = Path(folder)
    for name in names:
        path = path / name
        if path.is_symlink():
            raise UserError(f"{path} is a link, which no run makes: it is not followed")
    return path
