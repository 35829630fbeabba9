import pytest

from tests.documents import ROOT
from tests.site.pages import LostLinkError, copy_pages, linked_files, with_linked


@pytest.fixture
def documents(tmp_path):
    """Two documents that link to each other, to a picture and, by the second, to a table."""
    (tmp_path / "docs").mkdir()
    first, second = tmp_path / "README.md", tmp_path / "docs" / "second.md"
    first.write_text(
        "[second](docs/second.md#a), [elsewhere](https://example.org), ![](picture.png)"
    )
    second.write_text("# a\n\n[first](../README.md), [here](#a), [table](table.csv)")
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "docs" / "table.csv").write_text("a,b\n")
    return first


def test_files_are_found_behind_links_of_links(documents):
    names = {file.name for file in with_linked([documents])}
    assert names == {"README.md", "second.md", "picture.png", "table.csv"}


@pytest.mark.parametrize("link", ["none.md", "docs", "docs/none.csv"])
def test_a_link_to_nothing_or_to_a_folder_is_refused(documents, link):
    documents.write_text(f"[x]({link})")
    with pytest.raises(LostLinkError, match=link):
        linked_files(documents)


def test_the_copy_has_the_places_of_the_repository_and_nothing_older(tmp_path):
    (tmp_path / "older.md").write_text("")
    number = copy_pages(tmp_path)
    copied = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert len(copied) == number
    assert {(ROOT / one).read_bytes() == (tmp_path / one).read_bytes() for one in copied} == {True}
    assert {"README.md", "docs/gate.md", "docs/report.png", "reports/quick/report.md"} <= {
        one.as_posix() for one in copied
    }
