"""The quirks of the published experiments, and the protocols that keep them or take them back.

A quirk is a property of the released code that moves its numbers and that one would not choose
today. Each is a flag of the task's command, so each can be taken back alone.

A protocol is "published" (every quirk), "published-QUIRK" (all but this one), "published-all" (the
published settings with no quirk left), or "honest" (no quirk and, where they differ, the defaults
of the command; each mixer then has a learning rate of its own).
"""

import dataclasses
import tomllib
from pathlib import Path

from train.run.options import some_of

PUBLISHED, HONEST, ALL = "published", "honest", "all"


@dataclasses.dataclass(frozen=True)
class Quirk:
    name: str
    about: str
    on: str = ""
    off: str = ""
    mixers: list = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """How `python -m train.TASK` runs a family of sets; the fields are told in protocols.toml."""

    mixers: list
    metrics: dict
    published: str
    honest: str
    quick: str
    quirks: list
    untrained: list = ()

    def __post_init__(self):
        quirks = [{"mixers": self.trained, **quirk} for quirk in self.quirks]
        object.__setattr__(self, "quirks", [Quirk(**quirk) for quirk in quirks])

    @property
    def trained(self):
        return [mixer for mixer in self.mixers if mixer not in self.untrained]


def read(name, kind):
    """name -> a `kind` for each table of a TOML file beside this one."""
    content = tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return {key: kind(**fields) for key, fields in content.items()}


TASKS = read("protocols.toml", Task)


def protocols_called(text):
    """The protocols of "published,honest,published-unmasked". UserError for an unknown name."""
    quirks = {quirk.name for task in TASKS.values() for quirk in task.quirks if quirk.on}
    lost = (f"{PUBLISHED}-{name}" for name in (ALL, *sorted(quirks)))
    return some_of([PUBLISHED, HONEST, *lost], text, "protocols")


def flags(task, protocol, mixer):
    """The flags of a protocol; None for published-QUIRK where the mixer has no such quirk."""
    task = TASKS[task]
    quirks = [quirk for quirk in task.quirks if mixer in quirk.mixers]
    lost = ALL if protocol == HONEST else protocol.removeprefix(PUBLISHED).removeprefix("-")
    if lost not in ("", ALL, *(quirk.name for quirk in quirks if quirk.on)):
        return None
    chosen = [task.honest if protocol == HONEST else task.published]
    chosen += [quirk.off if lost in (quirk.name, ALL) else quirk.on for quirk in quirks]
    return tuple(" ".join(chosen).split())
