"""Make the pages' tables from the measurements beside them, and the README's picture:

python -m tests.pages
"""

from tests.pages.picture import picture
from tests.pages.tables import ROOT, filled, pages

PICTURE = ROOT / "tests/pages/direct_summation.svg"


def made():
    """(path, what its file should hold) of every page and of the picture."""
    for path in pages():
        yield path, filled(path, path.read_text(encoding="utf-8"))
    yield PICTURE, picture()


def main():
    for path, text in made():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
