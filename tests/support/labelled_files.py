"""What the tests of labelled text share: files to read, and no way to the network."""

import gzip
import json
import os
import sys


def without_hub(monkeypatch):
    """Neither the network nor MINISUM_DATA as the person has set it, which is returned."""
    real = os.environ.get("MINISUM_DATA")
    monkeypatch.delenv("MINISUM_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    return real


def write_csv(folder, rows, header="text,label", name="a.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path
