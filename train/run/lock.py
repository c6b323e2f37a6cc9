"""One folder, one run: a lock that is the operating system's and ends with its process."""

import contextlib
import os
import time
from pathlib import Path

from minisum.errors import UserError
from minisum.files import make_folder

# Seconds: a process that was killed a moment ago may still hold its lock.
PATIENCE = 2.0


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
        for leftover in folder.glob("*.tmp"):  # of a process that was killed as it wrote
            leftover.unlink()
        try:
            yield
        finally:
            if new and list(folder.iterdir()) == [path]:
                path.unlink()  # while it is held: whoever opened it before notices
                with contextlib.suppress(OSError):  # another has just put its own there
                    folder.rmdir()


def taken(path):
    """The locked file at `path`, None if another process holds it for longer than PATIENCE."""
    end = time.monotonic() + PATIENCE
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
