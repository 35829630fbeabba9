"""The wheel in an environment of its own, beside code of the user's that is called `bench`."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that has the wheel; what the wheel depends on is lent from ours."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("ftbench-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    # A path that a .pth file adds has its own .pth files unread: the editable install is not seen.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "python"


def run(python, folder, *arguments):
    return subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True)


TEST = "def test_it(): pass\n"
LAYOUTS = {
    "a folder": {"bench/__init__.py": "", "test_it.py": TEST},
    "a file": {"bench.py": "", "test_it.py": TEST},
    "an import": {
        "bench/__init__.py": "",
        "bench/timing.py": "SECONDS = 3\n",
        "test_it.py": "from bench.timing import SECONDS\ndef test_it(): assert SECONDS == 3\n",
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_pytest_beside_the_users_own_bench(python, tmp_path, name):
    for file, text in LAYOUTS[name].items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    done = run(python, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_fixture_comes_with_the_wheel(python, tmp_path):
    done = run(python, tmp_path, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider")
    assert "gpu_memory" in done.stdout


def test_the_wheel_has_the_command_the_profiles_and_nothing_else(python, tmp_path):
    code = "import ftbench; print(ftbench.__file__)"
    assert str(python.parents[1]) in run(python, tmp_path, "-c", code).stdout
    done = run(python, tmp_path, "-m", "ftbench", "schema")
    assert done.returncode == 0, done.stderr
    names = "from ftbench.plan.profile_file import profile_names; print(*profile_names())"
    assert {"quick", "smoke", "memory"} <= set(run(python, tmp_path, "-c", names).stdout.split())
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    assert not (site / "bench").exists()
    assert not (site / "studies").exists()
