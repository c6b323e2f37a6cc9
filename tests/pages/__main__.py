"""Make the pages' tables from the measurements beside them, and the README's picture:

python -m tests.pages
"""

from tests.pages.picture import picture
from tests.pages.tables import ROOT, filled, pages

PICTURE = ROOT / "tests/pages/direct_summation.svg"


def files():
    return [*pages(), PICTURE]


def content(path):
    """What should be in one of the files."""
    return picture() if path == PICTURE else filled(path, path.read_text(encoding="utf-8"))


def main():
    for path in files():
        text = content(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
