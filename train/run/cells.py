"""Finished parts of a comparison, kept in its folder: the next call does only what is missing."""

import hashlib
import json
from pathlib import Path

from minisum.errors import UserError
from train.run.options import flag


def claim_settings(folder, settings):
    """Write down the settings of a comparison; UserError if the folder has others."""
    path = folder.path / "settings.json"
    if not path.exists():
        folder.write_json(path, settings)
        return
    stored = read_json(path)
    for name in dict.fromkeys([*stored, *settings]):
        if stored.get(name) != settings.get(name):
            what = "the data" if name == "data_sha256" else f"{flag(name)} {settings.get(name)}"
            raise UserError(
                f"{what} contradicts the comparison in {folder}, which has {stored.get(name)}: "
                "choose another --out"
            )


class Cells:
    """The finished cells of a comparison: one JSON file each, with a hash of its settings."""

    def __init__(self, folder, settings):
        self.folder = folder
        text = json.dumps(settings, sort_keys=True)
        self.settings_sha256 = hashlib.sha256(text.encode()).hexdigest()

    def done(self, name):
        """The content of a finished cell, None if it is not there."""
        path = self.folder.path / "cells" / f"{name}.json"
        if not path.exists():
            return None
        content = read_json(path)
        if content.get("settings_sha256") != self.settings_sha256:
            raise UserError(f"{path} was made with other settings: choose another --out")
        return content

    def keep(self, name, content):
        path = self.folder.path / "cells" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"settings_sha256": self.settings_sha256} | content
        self.folder.write_json(path, content)
        return content


def read_json(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: delete it, and what is missing is done again")
    return content
