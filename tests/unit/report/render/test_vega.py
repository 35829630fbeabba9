from importlib.metadata import version

import pytest
import vl_convert

from ftbench.report.render import vega


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The scripts that were made, each the name of its turn; the cache is a folder of the test's own."""
    scripts = []

    def javascript_bundle(start):
        scripts.append(f"{start} {len(scripts)}")
        return scripts[-1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", javascript_bundle)
    yield scripts
    vega.script.cache_clear()


def script_of_a_new_process():
    vega.script.cache_clear()
    return vega.script()


def test_the_script_is_made_once_for_each_version(made, tmp_path, monkeypatch):
    first = script_of_a_new_process()
    assert script_of_a_new_process() == first == made[0]
    file = tmp_path / "ftbench" / f"vega-{version('vl-convert-python')}.js"
    assert file.read_text() == first
    monkeypatch.setattr(vega, "version", lambda _: "9.9")
    assert script_of_a_new_process() == made[1]


def test_a_cache_that_cannot_be_used_is_done_without(made, tmp_path, monkeypatch):
    (tmp_path / "ftbench").write_text("a file where the folder would be")
    assert script_of_a_new_process() == made[0]
    assert script_of_a_new_process() == made[1]


def test_a_file_that_is_no_text_is_made_anew(made, tmp_path):
    file = tmp_path / "ftbench" / f"vega-{version('vl-convert-python')}.js"
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\xff")
    assert script_of_a_new_process() == made[0]
    assert file.read_text() == made[0]
