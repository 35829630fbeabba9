"""The lookup of a browser, on a planted PATH."""

import pytest

from tests import browser


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    return tmp_path


def plant(folder, name, mode=0o755):
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    return program


@pytest.mark.parametrize(
    "name",
    [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "microsoft-edge",
        "msedge",
    ],
)
def test_each_browser_is_found_by_its_program(path, name):
    expected = plant(path, name)
    assert browser.find_browser() == str(expected)


def test_chromium_comes_before_the_others(path):
    plant(path, "msedge")
    expected = plant(path, "chromium")
    assert browser.find_browser() == str(expected)


def test_a_file_that_cannot_be_run_is_no_browser(path):
    plant(path, "chromium", mode=0o644)
    with pytest.raises(browser.NoBrowserError):
        browser.find_browser()


def test_the_variable_comes_before_path(path, monkeypatch, tmp_path):
    plant(path, "chromium")
    (tmp_path / "elsewhere").mkdir()
    named = plant(tmp_path / "elsewhere", "brave")
    monkeypatch.setenv(browser.VARIABLE, str(named))
    assert browser.find_browser() == str(named)


def test_the_variable_may_be_a_name_on_path(path, monkeypatch):
    named = plant(path, "brave")
    monkeypatch.setenv(browser.VARIABLE, "brave")
    assert browser.find_browser() == str(named)


def test_a_variable_that_names_no_program_is_refused_whatever_is_on_path(path, monkeypatch):
    plant(path, "chromium")
    monkeypatch.setenv(browser.VARIABLE, "/no/such/program")
    with pytest.raises(browser.NoBrowserError, match="/no/such/program"):
        browser.find_browser()


def test_an_empty_variable_asks_for_nothing(path, monkeypatch):
    expected = plant(path, "chromium")
    monkeypatch.setenv(browser.VARIABLE, "")
    assert browser.find_browser() == str(expected)


def test_without_any_the_options_are_named(path):
    with pytest.raises(browser.NoBrowserError) as caught:
        browser.find_browser()
    for option in (browser.VARIABLE, "apt-get install chromium", "msedge", "tests/unit"):
        assert option in str(caught.value)
