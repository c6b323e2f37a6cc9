"""Settings of a task that reads data: a set by its name, any of the hub's, or one's own files."""

import dataclasses

from minisum.errors import UserError, require_known
from train.run.options import FILE, NAME, Config, TextConfig, changed, flag, option, refuse


def of_name(config_class, default, names, what="corpus"):
    """The option --dataset with the named sets, beside which any of the hub's can be called."""
    told = f"{what} by name: {', '.join(names)}; or any of the hub's, USER/NAME or USER/NAME:CONFIG"
    return changed(config_class, "dataset", default, help=told, named=names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData(Config):
    """The settings of every task."""

    separator: str = option(
        None, "what stands between the cells of --data: ; or tab (default: by the suffix)", "data",
        metavar="CHARACTER",
    )  # fmt: skip
    encoding: str = option(None, "of --data (default: utf-8), such as cp1252", "data", **NAME)

    # Flags that mean nothing without --data FILE, and those that any set of the hub has too.
    WITH_FILE, WITH_COLUMNS = ("separator", "encoding"), ()

    def check(self, given=()):
        super().check(given)
        of_hub = "/" in self.dataset
        if not of_hub:
            require_known("--dataset", self.dataset, type(self).dataset_names())
        for name in (*self.WITH_FILE, *(() if of_hub else self.WITH_COLUMNS)):
            if self.data is None and getattr(self, name) is not None:
                raise UserError(f"{flag(name)} belongs to --data FILE, which is not given")

    @classmethod
    def dataset_names(cls):
        return cls.__dataclass_fields__["dataset"].metadata["named"]

    def source(self):
        return super().source() | self.pick("separator", "encoding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnTexts(OwnData, TextConfig):
    """The settings of a task that reads texts."""

    test_data: str = option(None, "test rows for --data (else cut from it)", "data", **FILE)
    val_data: str = option(None, "validation rows for --data (else cut from it)", "data", **FILE)

    WITH_FILE = (*OwnData.WITH_FILE, "test_data", "val_data")

    def check(self, given=()):
        super().check(given)
        if self.val_data is not None:
            refuse(["validation"], given, "--val-data FILE has the validation rows")
            if self.select == "test":
                raise UserError("--val-data has no meaning with --select test: leave one out")

    def source(self):
        return super().source() | {"test_file": self.test_data, "val_file": self.val_data}
