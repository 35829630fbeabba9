"""The pages of the site: a copy of the documents, with the files that they link to.

The copy has the places of the repository, so that each link works on the site as on a code host.
"""

import shutil

from tests.documents import DOCUMENTS, ROOT, links


class LostLinkError(Exception):
    """A link of a page leads nowhere, or to a folder, which has no page."""


# Files of the site that are no documents to these tests: the history, and the style.
FURTHER = (ROOT / "CHANGELOG.md", ROOT / "docs" / "site.css")


def with_linked(documents=(*DOCUMENTS, *FURTHER)):
    """Return the paths of the documents and of all files that they link to, directly or not."""
    found, left = set(), list(documents)
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".md":
            left += linked_files(file)
    return sorted(found)


def linked_files(document):
    """Return the files that a document links to, without itself; raises LostLinkError."""
    found = []
    for link in links(document.read_text()):
        name = link.partition("#")[0]
        file = (document.parent / name).resolve()
        if not name:
            continue
        if not file.is_file():
            raise LostLinkError(f"{document}: {link} is no file")
        found.append(file)
    return found


def copy_pages(folder):
    """Copy the pages and the linked files into an empty folder; return their number."""
    shutil.rmtree(folder, ignore_errors=True)
    files = with_linked()
    for file in files:
        copied = folder / file.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)
    return len(files)
