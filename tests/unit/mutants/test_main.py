"""What the session makes of mutmut's results; mutmut itself is not needed for it."""

import json
import tomllib

import pytest

import tests.mutants.__main__ as session

DIFF = """\
--- src/ftbench/gating/compare.py
+++ src/ftbench/gating/compare.py
@@ -3,5 +3,5 @@
     one = 1
     other = {many}
-    {before}
+    {after}
     return one"""


def mutant(code, before="a < b", after="a <= b", file="src/ftbench/gating/compare.py"):
    diff = DIFF.replace("{before}", before).replace("{after}", after) if code in (0, 33) else ""
    return {"name": "x", "code": code, "file": file, "line": 10, "diff": diff}


def printed(capsys, *results):
    session._print("gate", results)
    return capsys.readouterr().out.splitlines()


def test_survivors_are_named_by_file_and_line(capsys):
    # The function begins at line 10, the hunk at its third, and the change two lines on.
    first, *rest = printed(capsys, mutant(1), mutant(36), mutant(0), mutant(1))
    assert first.startswith("gate: 3 / 4 (75.0 %)")
    assert rest == ["gating/compare.py:14", "  - a < b", "  + a <= b"]


def test_mutants_that_no_test_reaches_survive_and_those_not_tried_are_not_counted(capsys):
    assert printed(capsys, mutant(33), mutant(1), mutant(None))[0].startswith("gate: 1 / 2 ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("zip(a, b, strict=True)", "zip(a, b, strict=False)"),
        ("zip(a, b, strict=True)", "zip(a, b, )"),
        ("a < b", "a == b"),
    ],
)
def test_equivalent_mutants_are_not_counted(capsys, monkeypatch, before, after):
    monkeypatch.setitem(session.EQUIVALENT, ("gating/compare.py", "a < b", "a == b"), "why")
    (only,) = printed(capsys, mutant(1), mutant(0, before, after))
    assert only.startswith("gate: 1 / 1 ")
    assert "1 equivalent" in only


@pytest.mark.parametrize("name", session.MODULES)
def test_every_module_has_sources_and_tests(name):
    subject = session.MODULES[name]
    assert list((session.ROOT / "bench/ftbench").glob(subject.sources))
    texts = [
        file.read_text()
        for test in subject.tests
        for file in (
            [session.ROOT / test] if test.endswith(".py") else (session.ROOT / test).rglob("*.py")
        )
    ]
    assert texts
    for left_out in subject.left_out:
        assert any(f"def {left_out}(" in text for text in texts)


def test_a_copy_of_the_tree_is_configured_and_the_checkout_is_not_touched(tmp_path):
    before = sorted(path.name for path in session.ROOT.iterdir())
    session._copy(session.MODULES["prediction/shapes"], tmp_path)
    assert (tmp_path / "src/ftbench/prediction/shapes/fit.py").is_file()
    assert (tmp_path / "tests/unit/prediction/shapes/test_fit.py").is_file()

    found = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["mutmut"]
    assert found["only_mutate"] == ["src/ftbench/prediction/shapes/*"]
    assert json.dumps(found["pytest_add_cli_args"]).count("not test_") == 3
    assert sorted(path.name for path in session.ROOT.iterdir()) == before
