"""A check of the built site: every link and picture is there, and nothing comes from another machine.

`python -m tests.site.built FOLDER` prints what is wrong and ends with 1, or ends with 0. Standard library only: it
runs in the environment that builds the site.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself; a link to another site is followed by the reader alone.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "prev", "next", "edit"}


class _Page(HTMLParser):
    """The names of a page's parts, and what it links to and loads."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep the names, links and loaded files of one element."""
        given = dict(attrs)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        address = given.get(LOADED.get(tag, ""))
        if address and given.get("rel") not in NOT_LOADED:
            self.loaded.append(address)


def problems(folder):
    """Return a sentence for each link that leads nowhere and each file that another machine would have to give."""
    pages = {file: _Page(file.read_text()) for file in sorted(folder.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        where = file.relative_to(folder)
        found += [f"{where}: loads {one}" for one in page.loaded if urlsplit(one).netloc]
        for link in (*page.links, *page.loaded):
            if not (urlsplit(link).scheme or urlsplit(link).netloc) and not _there(
                folder, file, link, pages
            ):
                found.append(f"{where}: {link} leads nowhere")
    return found


def _there(folder, file, link, pages):
    """Return whether a link of a page leads to a file of the site, and to a part of it that is there."""
    address = urlsplit(link)
    path = unquote(address.path)
    target = (folder / path.lstrip("/")) if path.startswith("/") else file.parent / path
    target = target.resolve() if path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    part = unquote(address.fragment)
    return not part or target not in pages or part in pages[target].names


def main():
    """Print the problems of the site in the folder that is named; end with 1 if there is any."""
    folder = Path(sys.argv[1]).resolve()
    found = problems(folder)
    print(
        "\n".join(found)
        or f"{folder}: all links lead somewhere, and nothing is loaded from elsewhere"
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
