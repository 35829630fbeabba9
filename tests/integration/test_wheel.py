"""The wheel in an environment of its own, beside code of the user's that is called `bench`."""

import os
import subprocess

import pytest


def run(python, folder, *arguments):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, *arguments], cwd=folder, env=env, capture_output=True, text=True)


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
def test_pytest_beside_the_users_own_bench(wheel_python, tmp_path, name):
    for file, text in LAYOUTS[name].items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    done = run(wheel_python, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_fixture_comes_with_the_wheel(wheel_python, tmp_path):
    done = run(wheel_python, tmp_path, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider")
    assert "gpu_memory" in done.stdout


def test_the_wheel_has_the_command_the_profiles_and_nothing_else(wheel_python, tmp_path):
    code = "import ftbench; print(ftbench.__file__)"
    assert str(wheel_python.parents[1]) in run(wheel_python, tmp_path, "-c", code).stdout
    done = run(wheel_python, tmp_path, "-m", "ftbench", "schema")
    assert done.returncode == 0, done.stderr
    names = "from ftbench.plan.profile_file import profile_names; print(*profile_names())"
    assert {"quick", "smoke", "memory"} <= set(
        run(wheel_python, tmp_path, "-c", names).stdout.split()
    )
    (site,) = wheel_python.parents[1].glob("lib/python*/site-packages")
    assert not (site / "bench").exists()
    assert not (site / "studies").exists()
