"""Finished parts of a comparison, kept in its folder: the next call does only what is missing."""

from minisum import files
from minisum.errors import UserError
from train.run.options import flag


def claim_settings(folder, settings):
    """Write down the settings of a comparison; UserError if the folder has others."""
    path = folder.path / "settings.json"
    if not path.exists():
        files.write_json(path, settings, sealed=True)
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
        self.settings_sha256 = files.digest(settings)

    def done(self, name):
        """The content of a finished cell, None if it is not there."""
        path = self.path(name)
        if not path.exists():
            return None
        content = read_json(path)
        if content.get("settings_sha256") != self.settings_sha256:
            raise UserError(f"{path} was made with other settings: choose another --out")
        return content

    def keep(self, name, content):
        path = self.path(name)
        files.make_folder(path.parent)
        content = {"settings_sha256": self.settings_sha256} | content
        files.write_json(path, content, sealed=True)
        return content

    def path(self, name):
        return files.inside(self.folder.path, "cells", f"{name}.json")


def read_json(path):
    """The content of a sealed file. UserError, with what to do, if it is damaged or edited."""
    try:
        return files.read_json(path)
    except UserError as error:
        raise UserError(f"{error}; delete it, and what is missing is done again") from None
