"""The numbers in print, recorded a second time: a digit that changes in one place is noticed.

Sums over a set's mixers and metrics, and the claimed speeds, as they were on the day the tables
became data. They guard against a slip of the hand, not against a misreading of the pages.
"""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# set: (numbers, their sum, speed)
SECOND_RECORD = {
    "ag_news": (2, 1.82, "6-18"), "20newsgroups": (2, 1.23, "6-18"), "imdb": (2, 1.75, "6-18"),
    "reuters": (2, 1.58, "6-18"), "lm-wikitext-2-raw": (6, 905.66, None),
    "lm-wikitext-2": (6, 905.66, None), "lm-ag_news": (6, 210.0, None),
    "lm-imdb": (6, 493.62, None), "lm-cmu-book-summaries": (6, 890.54, None),
    "civil_comments": (4, 0.6778, "2-15"), "civil_comments_spans": (0, 0, None),
    "ETTh1": (2, 0.8837, "1.36"), "ETTh2": (2, 0.4379, "1.37"), "ETTm1": (2, 0.6999, "1.34"),
    "ETTm2": (2, 0.3601, "1.44"), "Weather": (2, 0.3155, "1.45"), "Traffic": (2, 0.6469, "1.38"),
}  # fmt: skip
RECIPES = {
    "classifier": 10601.0001001, "causal": 5798.0001, "multimodal": 15662.4501001,
    "forecast": 1070.3001,
}  # fmt: skip


def table(name):
    return tomllib.loads((ROOT / "train" / name).read_text(encoding="utf-8"))


def numbers(tree):
    for value in tree.values():
        if isinstance(value, dict):
            yield from numbers(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield value


def test_the_published_tables_are_as_they_were_copied():
    tables = table("reproduce/tables.toml")
    assert tables.keys() == SECOND_RECORD.keys()
    for name, (count, total, speed) in SECOND_RECORD.items():
        found = list(numbers(tables[name].get("numbers", {})))
        assert len(found) == count and sum(found) == pytest.approx(total, abs=1e-9), name
        assert str(tables[name].get("speed")) == str(speed), name


def test_the_published_settings_are_as_they_were_copied():
    recipes = table("recipes.toml")
    assert recipes.keys() == RECIPES.keys()
    for task, total in RECIPES.items():
        assert sum(numbers(recipes[task]["published"])) == pytest.approx(total, abs=1e-9), task
