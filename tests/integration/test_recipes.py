"""The recipes for CI of other people: their own text, in a repository that has a wheel of ftbench."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from ftbench.base.units import parse_bytes
from tests.foreign import (
    BRANCH,
    LABEL,
    PLANTED_LINE,
    RECIPES,
    ROOT,
    GitHub,
    Repository,
    gitlab,
    make_repository,
)
from tests.integration.conftest import some_long
from tests.small_model import small_encoder

pytestmark = pytest.mark.integration

SUBJECT = ("train.py:make_step", "--arg", "batch=8")
GATES = {
    "github-actions.yml": lambda repository: GitHub(repository).run("github-actions.yml"),
    "github-actions-uv.yml": lambda repository: GitHub(repository).run("github-actions-uv.yml"),
    "github-actions-composite.yml": lambda repository: GitHub(repository).run(
        "github-actions-composite.yml"
    ),
    "gitlab-ci.yml": lambda repository: gitlab(repository, "memory"),
}
ACCEPTS = {
    "github-accept-memory.yml": lambda repository: GitHub(repository).run(
        "github-accept-memory.yml"
    ),
    "gitlab-ci.yml": lambda repository: gitlab(
        repository, "accept-memory-push", CI_MERGE_REQUEST_LABELS=f"bug,{LABEL}"
    ),
}


@pytest.fixture(scope="module")
def accepted(wheel_python, tmp_path_factory) -> Repository:
    """A repository with the baselines of its training, as docs/ci.md says to make them."""
    folder = tmp_path_factory.mktemp("foreign") / "repository"
    folder.mkdir()
    made = make_repository(folder, wheel_python, Path(sys.executable))
    for command in (
        ("ftbench", "baseline", "write", *SUBJECT),
        ("python", "-m", "pytest", "--gpu-memory-update"),
    ):
        done = made.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    made.git("add", "--all")
    made.git("commit", "--message", "the memory of training")
    return made


@pytest.fixture
def repository(accepted, tmp_path) -> Repository:
    return accepted.copy(tmp_path / "repository")


@pytest.fixture
def regressed(repository) -> Repository:
    repository.plant()
    return repository


def changes(text):
    """Return the peaks that a failure names first, before and after, and check that its parts add up."""
    peaks, block = re.search(
        r"the peak rose from (.*?) bytes.*?:\n(.*?) in all \(", text, re.DOTALL
    ).groups()
    before, after = (int(peak.replace(",", "")) for peak in peaks.split(" to "))
    *parts, total = (line.replace(",", " ").split()[:2] for line in block.splitlines())
    rounded = 0.05 * parse_bytes(f"1 {total[1]}")  # figures are told to a tenth
    added = sum(float(figure) * parse_bytes(f"1 {unit}") for figure, unit in parts)
    assert added == pytest.approx(after - before, abs=rounded * len(parts))
    assert float(total[0]) * parse_bytes(f"1 {total[1]}") == pytest.approx(
        after - before, abs=rounded
    )
    assert f"in all ({after - before:+,} bytes)" in text
    return before, after


@pytest.mark.long
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_holds_and_its_reports_are_kept(repository, gate):
    job = GATES[gate](repository)
    assert not job.failed, job.log
    assert "The gate holds: 1 cell matches the baseline." in job.log
    assert [name for name in job.kept if not (repository.folder / name).is_file()] == []
    assert {"gate.html"} < set(job.kept)
    suite = ElementTree.parse(repository.folder / "gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert repository.git("status", "--porcelain") == ""
    assert "The gate holds" in (repository.folder.parent / "summary.md").read_text()


@pytest.mark.parametrize("gate", some_long(list(GATES), every=len(GATES)))
def test_a_regression_fails_and_says_what_moved_where_and_how_it_is_accepted(regressed, gate):
    job = GATES[gate](regressed)
    assert job.failed
    texts = [
        job.log,
        (regressed.folder.parent / "summary.md").read_text(),
        (regressed.folder / "gate.html").read_text(),
        ElementTree.parse(regressed.folder / "gate.xml").find(".//failure").text,
    ]
    baseline = json.loads((regressed.folder / "reports/baselines/train.make_step.json").read_text())
    before, after = changes(texts[0])
    assert before == baseline["groups"][0]["cells"][0]["tensors_bytes"] < after
    update = shlex.join(["ftbench", "baseline", "update", *SUBJECT])
    for text in texts:
        assert f"{before:,}" in text
        assert f"{after:,}" in text
        assert PLANTED_LINE in text
        assert update in text
    if "composite" not in gate:
        assert (
            "`pytest tests/test_memory.py::test_a_step_needs_no_more_memory_than_before" in job.log
        )
        assert job.log.count(PLANTED_LINE) > 1


@pytest.mark.long
def test_a_profile_is_gated_as_a_program_is(repository):
    small_encoder(repository.folder / "model", ["a", "b"])
    assert repository.run("ftbench", "baseline", "write", "tiny").returncode == 0
    held = gitlab(repository, "memory", SUBJECT="tiny")
    assert not held.failed, held.log
    assert "The gate holds: 2 cells match" in held.log
    profile = repository.folder / "profiles" / "tiny.toml"
    text = profile.read_text()
    assert "gradient_checkpointing = true" in text
    profile.write_text(text.replace("gradient_checkpointing = true", ""))
    failed = gitlab(repository, "memory", SUBJECT="tiny")
    assert failed.failed
    changes(failed.log)
    assert "gradient_checkpointing on -> off" in failed.log
    assert "modeling_bert.py:" in failed.log
    assert "`ftbench baseline update tiny`" in failed.log


@pytest.mark.long
@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_label_accepts_a_regression_as_a_commit_after_which_the_gate_holds(regressed, accept):
    job = ACCEPTS[accept](regressed)
    assert not job.failed, job.log
    at = ("-C", "../remote")
    pushed = regressed.git(*at, "log", "-1", "--format=%B", BRANCH)
    assert "Accept the memory of training" in pushed
    changes(pushed)
    files = regressed.git(*at, "show", "--format=", "--name-only", BRANCH).split()
    assert files == [
        "reports/baselines/train.make_step.json",
        "tests/gpu_memory/test_memory/step.json",
    ]
    assert regressed.git("status", "--porcelain") == ""
    held = GATES["gitlab-ci.yml"](regressed)
    assert not held.failed, held.log


@pytest.mark.long
def test_github_starts_the_gate_on_the_new_commit_and_takes_the_label_off(regressed):
    ACCEPTS["github-accept-memory.yml"](regressed)
    calls = (regressed.folder.parent / "calls").read_text().splitlines()
    assert calls == [
        "workflow run memory.yml --ref a-branch",
        f"api --silent --method DELETE repos/us/foreign/issues/7/labels/{LABEL}",
    ]


@pytest.mark.long
@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_commit_after_the_label_is_not_accepted(regressed, accept):
    """The push is no fast-forward once the branch has moved: what it has now is gated again."""
    regressed.git("commit", "--allow-empty", "--message", "later")
    regressed.git("push", "--quiet", "origin", BRANCH)
    regressed.git("reset", "--quiet", "--hard", "HEAD~")
    job = ACCEPTS[accept](regressed)
    assert job.failed
    assert "[rejected]" in job.log
    assert regressed.git("-C", "../remote", "log", "-1", "--format=%s", BRANCH) == "later\n"


@pytest.mark.long
def test_gitlab_commits_on_the_branch_and_not_on_its_merge_with_the_target(regressed):
    own = regressed.git("rev-parse", "HEAD").strip()
    regressed.git("checkout", "--quiet", "-b", "target", "HEAD~")
    regressed.git("commit", "--allow-empty", "--message", "of the target")
    regressed.git("merge", "--quiet", "--no-edit", BRANCH)
    job = gitlab(
        regressed,
        "accept-memory-push",
        CI_MERGE_REQUEST_LABELS=LABEL,
        CI_MERGE_REQUEST_SOURCE_BRANCH_SHA=own,
    )
    assert not job.failed, job.log
    assert regressed.git("-C", "../remote", "rev-parse", f"{BRANCH}~").strip() == own


@pytest.mark.long
def test_arguments_with_spaces_uv_and_no_tests(repository):
    """A list is one argument, in every recipe; a repository may have the gate without tests."""
    grid = {"SUBJECT": "train.py:make_step --arg 'batch=[4, 16]'", "TESTS": ""}
    (repository.folder / "reports/baselines/train.make_step.json").unlink()
    arguments = shlex.split(grid["SUBJECT"])
    assert repository.run("ftbench", "baseline", "write", *arguments).returncode == 0
    shutil.rmtree(repository.folder / "tests")
    repository.git("add", "--all")
    repository.git("commit", "--message", "a grid, and no tests")
    for held in (
        GitHub(repository).run("github-actions.yml", **grid),
        GitHub(repository).run("github-actions-uv.yml", **grid),
        GitHub(repository).run("github-actions-composite.yml", **grid),
        gitlab(repository, "memory", **grid),
    ):
        assert not held.failed, held.log
        assert "2 cells match" in held.log
    repository.plant()
    job = GitHub(repository).run("github-accept-memory.yml", **grid, RUN="uv run")
    assert not job.failed, job.log
    files = repository.git("-C", "../remote", "show", "--format=", "--name-only", BRANCH).split()
    assert files == ["reports/baselines/train.make_step.json"]


CODE = re.compile(r"pip install|uv sync|ftbench|pytest")


def test_a_job_that_runs_other_peoples_code_has_a_token_that_reads():
    jobs = yaml.safe_load((RECIPES / "github-accept-memory.yml").read_text())["jobs"]
    (job,) = (
        job for job in jobs.values() if CODE.search(str([s.get("run") for s in job["steps"]]))
    )
    assert job["permissions"] == {"contents": "read"}
    assert "github.token" not in str(job)
    assert job["steps"][0]["with"]["persist-credentials"] is False
    jobs = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())
    shell = {name: str((job.get("before_script"), job.get("script"))) for name, job in jobs.items()}
    running = {name for name in shell if CODE.search(shell[name])}
    assert running == {".memory", "memory", "accept-memory-predict"}
    assert [name for name in running if "environment" in jobs[name]] == []


@pytest.mark.long
def test_nothing_is_committed_if_nothing_moved(repository):
    before = repository.git("rev-parse", "HEAD")
    for accept in ACCEPTS.values():
        job = accept(repository)
        assert not job.failed, job.log
        assert repository.git("rev-parse", "HEAD") == before


def test_nobody_accepts_without_the_label_or_on_a_fork(repository):
    fork = {"github__event__pull_request__head__repo__full_name": "them/foreign"}
    for event in ({"github__event__label__name": "bug"}, fork):
        assert GitHub(repository, **event).run("github-accept-memory.yml").skipped
    fork = {"CI_MERGE_REQUEST_SOURCE_PROJECT_PATH": "them/foreign"}
    for job in ("accept-memory-label", "accept-memory-predict", "accept-memory-push"):
        assert gitlab(repository, job, CI_MERGE_REQUEST_LABELS=f"not-{LABEL}").skipped
        assert gitlab(repository, job, CI_MERGE_REQUEST_LABELS=LABEL, **fork).skipped
    assert gitlab(repository, "memory", CI_PIPELINE_SOURCE="push").skipped


@pytest.mark.long
def test_gitlab_takes_the_label_off_before_it_accepts_anything(regressed):
    before = regressed.git("rev-parse", "HEAD")
    refused = Repository(regressed.folder, regressed.env | {"STATUS": "22"})
    job = ACCEPTS["gitlab-ci.yml"](refused)
    assert job.failed
    assert regressed.git("status", "--porcelain") == ""
    assert regressed.git("rev-parse", "HEAD") == before
    (call,) = (regressed.folder.parent / "calls").read_text().splitlines()
    assert call.endswith(
        "--request PUT --header PRIVATE-TOKEN: secret"
        " https://gitlab.test:8443/git/api/v4/projects/3/merge_requests/7"
        f"?remove_labels={LABEL}"
    )


@pytest.mark.long
def test_a_comment_begins_with_a_failure_and_is_kept_up_to_date(repository):
    marker = f"<!-- ftbench-gate: {shlex.join(SUBJECT)} -->"

    def calls(answer="", **event):
        noted = repository.folder.parent / "calls"
        noted.unlink(missing_ok=True)
        answered = Repository(repository.folder, repository.env | {"ANSWER": answer})
        job = GitHub(answered, **event).run("github-actions-composite.yml")
        lines = [line for line in noted.read_text().splitlines() if line.startswith("api ")]
        *asked, last = lines
        if "--silent" in last:
            last, _, body = last.partition(" --raw-field body=")
            assert body == marker, "each subject has a comment of its own"
        return job, [*asked, last]

    listed = "api --paginate repos/us/foreign/issues/7/comments --jq"
    job, (asked,) = calls()
    assert not job.failed
    assert asked.startswith(listed)
    repository.plant()
    job, (asked, written) = calls()
    assert job.failed
    assert written == "api --silent --method POST repos/us/foreign/issues/7/comments"
    assert PLANTED_LINE in (repository.folder / "comment.md").read_text()
    changed = "api --silent --method PATCH repos/us/foreign/issues/comments/12"
    _, (asked, written) = calls("12\n")
    assert written == changed
    # As accept-memory.yml starts it: the branch's pull request is asked for.
    dispatched = {"github__event_name": "workflow_dispatch", "github__event__number": ""}
    _, (found, asked, written) = calls("12\n", **dispatched)
    assert "--raw-field head=us:a-branch" in found
    assert asked.startswith("api --paginate repos/us/foreign/issues/12/comments --jq")
    assert written == changed


@pytest.mark.long
def test_the_hook_runs_at_a_commit(repository):
    """pre-commit itself, with the hook's manifest of this checkout in the place of a published one."""
    hooks = repository.folder.parent / "hooks"
    hooks.mkdir()
    (hooks / ".pre-commit-hooks.yaml").write_text((ROOT / ".pre-commit-hooks.yaml").read_text())
    at = ("-C", str(hooks))
    repository.git(*at, "init", "--quiet")
    repository.git(*at, "add", "--all")
    repository.git(
        *at, "-c", "user.name=us", "-c", "user.email=us@x.test", "commit", "-qm", "hooks"
    )
    revision = repository.git(*at, "rev-parse", "HEAD").strip()
    text = (RECIPES / "pre-commit-config.yaml").read_text()
    config = yaml.safe_load(text)
    config["repos"][0] |= {"repo": str(hooks), "rev": revision}
    (repository.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    repository.git("add", "--all")

    held = repository.run("pre-commit", "run", "--all-files")
    assert held.returncode == 0, held.stdout + held.stderr
    assert "Passed" in held.stdout
    repository.plant()
    failed = repository.run("pre-commit", "run", "--all-files")
    assert failed.returncode == 1
    changes(failed.stdout)
    assert PLANTED_LINE in failed.stdout
    unrelated = repository.run("pre-commit", "run", "--files", "requirements.txt")
    assert "Skipped" in unrelated.stdout


def test_workflows_agree_on_what_is_gated_and_where_baselines_are(accepted):
    """Whoever copies two of the files must find the same variables in both."""
    subject = shlex.join(SUBJECT)
    hook = yaml.safe_load((RECIPES / "pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
    assert shlex.join(hook["args"]) == subject
    named = [
        line.partition(": ")[2]
        for file in sorted(RECIPES.glob("*.yml"))
        for line in file.read_text().splitlines()
        if line.strip().startswith(("SUBJECT:", "subject:"))
    ]
    assert set(named) == {subject}
    assert len(named) == len(list(RECIPES.glob("*.yml")))
