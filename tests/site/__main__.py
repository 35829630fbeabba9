"""The pages of the documentation site: `python -m tests.site FOLDER` writes them, for zensical to build."""

import argparse
from pathlib import Path

from tests.site.pages import copy_pages
from tests.site.reference import PAGES, write_reference


def main():
    """Write the documents, the files that they link to, and the reference."""
    parser = argparse.ArgumentParser("python -m tests.site", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the pages; it is emptied before")
    folder = parser.parse_args().folder
    copied = copy_pages(folder)
    write_reference(folder / "reference")
    print(f"{folder}: {copied} documents and linked files, {len(PAGES)} pages of reference")


if __name__ == "__main__":
    main()
