"""Make the pages' tables and charts from the measurements beside them, and the README's picture:

python -m tests.pages
"""

from tests.pages.charts import chart
from tests.pages.picture import picture
from tests.pages.tables import ROOT, figures, filled, pages, read

PICTURE = ROOT / "tests/pages/direct_summation.svg"


def files():
    charts = [path.with_suffix(".svg") for path in figures() if "chart" in read(path)]
    return [*pages(), PICTURE, *charts]


def content(path):
    """What should be in one of the files."""
    if path == PICTURE:
        return picture()
    if path.suffix == ".svg":
        return chart(read(path.with_suffix(".json")))
    return filled(path, path.read_text(encoding="utf-8"))


def main():
    for path in files():
        text = content(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
