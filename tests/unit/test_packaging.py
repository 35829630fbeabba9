"""What a release consists of agrees with itself: versions, extras, and the files that others name."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
SDIST = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
RECIPES = sorted((ROOT / "examples" / "ci").glob("*.y*ml"))


def test_the_citation_and_the_recipes_have_the_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    tags = re.findall(r"ftbench@v(\S+)|rev: v(\S+)", "".join(file.read_text() for file in RECIPES))
    assert {first or second for first, second in tags} == {PROJECT["version"]}
    assert len(tags) == 2


def test_every_extra_is_in_the_table_and_no_other():
    table = re.findall(
        r"^\| `'ftbench\[(\w+)\]'` \|", (ROOT / "docs/first-steps.md").read_text(), re.M
    )
    assert table == list(PROJECT["optional-dependencies"])


def test_all_that_the_sdist_names_is_here():
    """In a checkout: nothing is named that is gone. In an unpacked sdist: nothing was left out of it."""
    assert [name for name in SDIST if not (ROOT / name[1:]).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: git has no list of folders")
def test_the_sdist_has_every_folder_that_git_has():
    done = subprocess.run(
        ["git", "ls-tree", "-d", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    folders = {f"/{name}" for name in done.stdout.split() if name[0] != "."}
    assert "/bench" in folders, done.stderr
    assert folders <= set(SDIST)


@pytest.mark.parametrize("name", ["action.yml", "docs/ci.md"])
def test_the_inputs_of_the_action_are_all_used_and_documented(name):
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    form = "inputs.{}" if name == "action.yml" else "`{}`"
    text = (ROOT / name).read_text().replace("`run` (`uv run` with uv)", "`run`")
    assert [each for each in inputs if form.format(each) not in text] == []


def test_actions_are_named_with_a_version():
    text = "".join(file.read_text() for file in [*RECIPES, ROOT / "action.yml"])
    used = set(re.findall(r"uses: (\S+)", text))
    assert used
    assert [
        name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+\.\d+)?", name)
    ] == []


def test_the_hook_is_the_one_that_the_recipe_names():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    recipe = yaml.safe_load((ROOT / "examples/ci/pre-commit-config.yaml").read_text())
    assert [each["id"] for each in recipe["repos"][0]["hooks"]] == [hook["id"]]


def test_every_requirement_has_a_lower_bound():
    extras = PROJECT["optional-dependencies"].values()
    found = [*PROJECT["dependencies"], *(each for extra in extras for each in extra)]
    assert [each for each in found if not re.search(r">=|==", each)] == []
