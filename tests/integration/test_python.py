"""ftbench from Python: a notebook from start to end, and a script without a guard."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.conftest import ftbench

NOTEBOOK = Path("examples/results.ipynb")
SCRIPT = """
import ftbench
print("began")
found = ftbench.predict("smoke", gpu="t4")
print(found.to_pandas()[["cell_id", "reserved_bytes"]].to_json(orient="values"))
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, executed in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path("bench").resolve())
    try:
        NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
        ).execute()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return folder, [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """What a notebook shows as the value of a cell, as HTML."""
    (value,) = [one for one in cell.outputs if one.output_type == "execute_result"]
    return value["data"]["text/html"]


def test_a_notebook_shows_tables(executed):
    _, (_, predicted, _, results, *_, estimated) = executed
    assert shown(predicted).count("<tr") == 3  # the head and two lengths
    assert shown(results).count("<tr") == 3
    assert "<table" in shown(estimated)


def test_the_report_of_a_notebook_is_there(executed):
    folder, _ = executed
    assert (folder / "results" / "smoke" / "report.md").is_file()
    assert len(list((folder / "results" / "smoke" / "records").glob("*.json"))) == 2


def test_a_script_without_a_guard_predicts_what_the_command_predicts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path("bench").resolve())}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    began, table = done.stdout.splitlines()
    assert began == "began"
    cells = json.loads(ftbench("predict", "smoke", "--gpu", "t4", "--json").stdout)["cells"]
    assert json.loads(table) == [
        [cell["cell_id"], cell["cards"][0]["reserved"]["value_bytes"]] for cell in cells
    ]
