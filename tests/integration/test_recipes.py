"""The recipes for CI, as they are in examples/ci: their own commands, run on a checkout like this one."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.integration.conftest import some_long

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "ci"
SHIM = """#!/bin/sh
# In the place of nox and pip: the session's command, in the environment that is there.
case "$1" in
  -s) shift 3; exec {ftbench} gate "$@" ;;
esac
"""


def github():
    """Return the environment and the commands of the GitHub workflow."""
    recipe = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    job = recipe["jobs"]["memory"]
    steps = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    return job["env"], [steps["Install"], steps["Gate"]]


def gitlab():
    """Return the environment and the commands of the GitLab job."""
    job = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())["memory"]
    return {"PROFILE": job["variables"]["PROFILE"]}, job["script"]


@pytest.fixture
def checkout(tmp_path):
    """A folder as a checkout is, with a small profile and programs that are installed already."""
    programs = tmp_path / "bin"
    programs.mkdir()
    ftbench = Path(sys.executable).with_name("ftbench")
    for name in ("nox", "python"):
        shim = programs / name
        shim.write_text(SHIM.format(ftbench=ftbench) if name == "nox" else "#!/bin/sh\n")
        shim.chmod(0o755)
    (tmp_path / "profiles").mkdir()
    profile = (ROOT / "profiles" / "memory.toml").read_text()
    small = profile.replace("[64, 128, 256, 512]", "[64]").replace("[4, 8, 16, 32]", "[4]")
    (tmp_path / "profiles" / "memory.toml").write_text(small)
    done = subprocess.run(
        [ftbench, "baseline", "write", "profiles/memory.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def run(checkout, recipe, **environment):
    own, commands = recipe
    env = os.environ | own | {"PROFILE": "profiles/memory.toml"} | environment
    env["PATH"] = f"{checkout / 'bin'}:{env['PATH']}"
    script = "\n".join(["set -e", *commands])
    return subprocess.run(
        ["bash", "-c", script], cwd=checkout, env=env, capture_output=True, text=True
    )


@pytest.mark.parametrize("recipe", some_long([github, gitlab]))
def test_a_recipe_passes_and_leaves_its_files(checkout, recipe):
    summary = checkout / "summary.md"
    done = run(checkout, recipe(), GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ElementTree.parse(checkout / "gate.xml").getroot().get("failures") == "0"
    assert "The gate holds: 4 cells" in (checkout / "comment.md").read_text()
    assert "<html" in (checkout / "gate.html").read_text()
    assert "The gate holds" in summary.read_text()


@pytest.mark.long
def test_a_recipe_fails_where_memory_moved(checkout):
    baseline = checkout / "reports" / "baselines" / "memory.json"
    text = baseline.read_text()
    first = text.index('"tensors_bytes": ') + len('"tensors_bytes": ')
    baseline.write_text(text[:first] + "1" + text[first:])
    done = run(checkout, gitlab())
    assert done.returncode == 1
    assert "improvement" in (checkout / "comment.md").read_text()


def test_the_recipes_run_a_session_that_is_there():
    sessions = (ROOT / "noxfile.py").read_text()
    assert "def memory(session" in sessions
    for _, commands in (github(), gitlab()):
        assert any(command.startswith("nox -s memory -- ") for command in commands)


def test_a_workflow_names_what_it_keeps():
    recipe = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    kept = next(s for s in recipe["jobs"]["memory"]["steps"] if s.get("name") == "Keep the page")
    assert set(kept["with"]["path"].split()) == {"gate.html", "gate.xml"}
