"""A repository of somebody else that has ftbench as a dependency, and what runs the recipes for CI in it.

Steps run as the service runs them: their shell text as it stands, under its shell, with its variables. What is not
run: the set-up actions that a workflow names, and `INSTALLS_FROM_AN_INDEX`. Checkout and artifacts have stand-ins.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "examples" / "ci"
# The steps in whose place the wheel's environment is there already. `pip install -r requirements.txt` does run, and
# finds all that it names.
INSTALLS_FROM_AN_INDEX = "uv sync --locked"
LABEL = "accept-memory"
BRANCH = "a-branch"

TRAIN = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(64, 256)
        self.down = nn.Linear(256, 64)

    def forward(self, x):
        hidden = self.up(x)
        return self.down(torch.relu(hidden))


def make_step(device, batch=4):
    model = Net().to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.ones(batch, 512, 64, device=device)

    def step():
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
"""
# Planted: the activations of a layer are kept in double precision for the backward pass.
BEFORE = "self.down(torch.relu(hidden))"
AFTER = "self.down(torch.relu(hidden.double() ** 2).float())"
PLANTED_LINE = f"(train.py:{TRAIN[: TRAIN.index(BEFORE)].count(chr(10)) + 1})"
FILES = {
    "train.py": TRAIN,
    "tests/test_memory.py": (
        "from train import make_step\n\n\n"
        "def test_a_step_needs_no_more_memory_than_before(gpu_memory):\n"
        '    gpu_memory.compare("step", make_step)\n'
    ),
    "requirements.txt": "ftbench[pytest]\ntorch\ntransformers\n",
    "pyproject.toml": (
        '[project]\nname = "foreign"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        '[dependency-groups]\ndev = ["ftbench[pytest]"]\n'
    ),
    "profiles/tiny.toml": """\
[workload]
model = "model"
weights = "random"
dataset = "synthetic:full-length"
eval_size = 16

[[grid]]
max_length = [16, 32]
per_device_train_batch_size = [4]
train_size = [16]

[training]
gradient_checkpointing = true
""",
    ".gitignore": "__pycache__/\n.pytest_cache/\n/.venv\n/gate.*\n/tests.xml\n/comment.md\n/accepted/\n",
}
# In the place of programs that ask a service: each notes what it is asked, a line a call, and takes its answer
# and its exit status from variables.
ASKING = '#!/bin/sh\necho "$*" >> "$CALLS"\nprintf "%s" "$ANSWER"\nexit "${STATUS:-0}"\n'


@dataclasses.dataclass
class Repository:
    """A checkout with its remote, in which commands run with the programs of an environment first on the path."""

    folder: Path
    env: dict[str, str]

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout."""
        return subprocess.run(
            command, cwd=self.folder, env=self.env | env, capture_output=True, text=True
        )

    def git(self, *words: str) -> str:
        """Run git, which must succeed; return what it prints."""
        done = self.run("git", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def plant(self) -> None:
        """Plant the regression, as a commit of the branch."""
        text = (self.folder / "train.py").read_text()
        assert BEFORE in text
        (self.folder / "train.py").write_text(text.replace(BEFORE, AFTER))
        self.git("commit", "--all", "--message", "faster, surely")

    def copy(self, folder: Path) -> Repository:
        """Return a copy with its own remote, summary and notes of calls."""
        shutil.copytree(self.folder.parent, folder, symlinks=True)
        return Repository(folder / "checkout", self.env | _own_variables(folder))


def _own_variables(folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "RUNNER_TEMP": str(folder / "temp"),
        "CALLS": str(folder / "calls"),
        "CI_PROJECT_DIR": str(folder / "checkout"),
        # The remote of GitLab's recipe, by its address.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder / 'remote'}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://oauth2:secret@gitlab.test:8443/git/us/foreign.git",
    }


def make_repository(folder: Path, python: Path, *programs: Path) -> Repository:
    """Return a new repository whose environment is that of `python`; other programs come after its own."""
    checkout, tools = folder / "checkout", folder / "tools"
    for name, text in FILES.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    tools.mkdir()
    for name in ("gh", "curl"):
        (tools / name).write_text(ASKING)
        (tools / name).chmod(0o755)
    (checkout / ".venv").symlink_to(python.parents[1])
    path = [python.parent, tools, *(program.parent for program in programs), "/usr/bin", "/bin"]
    plain = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    env = plain | {
        "PATH": os.pathsep.join(map(str, path)),
        "CI": "true",
        "ANSWER": "",
        "GITHUB_REPOSITORY": "us/foreign",
        "GITHUB_REPOSITORY_OWNER": "us",
        "GITHUB_REF_NAME": BRANCH,
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
    }
    made = Repository(checkout, env | _own_variables(folder))
    made.git("init", "--quiet", "--initial-branch", BRANCH)
    made.git("config", "user.name", "us")
    made.git("config", "user.email", "us@foreign.test")
    made.git("init", "--quiet", "--bare", str(folder / "remote"))
    made.git("remote", "add", "origin", "../remote")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "training")
    made.git("push", "--quiet", "origin", BRANCH)
    return made


@dataclasses.dataclass
class Job:
    """What a job came to: the result of each step that ran, by name, and the files that it keeps."""

    steps: dict[str, subprocess.CompletedProcess[str]] = dataclasses.field(default_factory=dict)
    kept: list[str] = dataclasses.field(default_factory=list)
    skipped: bool = False

    @property
    def failed(self) -> bool:
        """Return whether a step failed."""
        return any(step.returncode for step in self.steps.values())

    @property
    def log(self) -> str:
        """Return all that the steps printed."""
        return "\n".join(f"{n}:\n{s.stdout}{s.stderr}" for n, s in self.steps.items())


# GitHub

_SHELLS = {"": ("bash", "-e"), "bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail")}
_TOKENS = re.compile(r"'[^']*'|[\w.-]+(?:\('[^']*'\)|\(\))?|==|!=|&&|\|\||[!()]")
_WORDS = {"&&": "and", "||": "or", "!": "not"}
_STATUS = re.compile(r"\b(always|failure|cancelled|success)\(\)")


class GitHub:
    """Runs the jobs of a workflow. `event` has the values of the event's expressions, by their full names."""

    def __init__(self, repository: Repository, **event: object) -> None:
        self._repository = repository
        self._values: dict[str, object] = {
            "always()": True,
            "cancelled()": False,
            "runner.temp": repository.env["RUNNER_TEMP"],
            "github.token": "token",
            "github.event_name": "pull_request",
            "github.event.number": 7,
            "github.event.label.name": LABEL,
            "github.event.pull_request.head.ref": BRANCH,
            "github.event.pull_request.head.sha": repository.git("rev-parse", "HEAD").strip(),
            "github.event.pull_request.head.repo.full_name": "us/foreign",
            "github.repository": "us/foreign",
        } | {name.replace("__", "."): value for name, value in event.items()}
        self._job = Job()

    def run(self, recipe: str, **env: str) -> Job:
        """Return what the jobs of a recipe came to, all in one; `env` takes the place of variables of the file."""
        workflow = yaml.safe_load((RECIPES / recipe).read_text())
        jobs: dict[str, Job] = {}
        for name, job in workflow["jobs"].items():
            needed = jobs.get(job.get("needs"), Job())
            jobs[name] = self._job = Job(skipped=needed.failed or needed.skipped)
            if self._job.skipped or not self._holds(job.get("if", "always()")):
                self._job.skipped = True
                continue
            shutil.rmtree(self._repository.env["RUNNER_TEMP"], ignore_errors=True)
            Path(self._repository.env["RUNNER_TEMP"]).mkdir()
            declared = workflow.get("env", {}) | job.get("env", {})
            self._run_steps(job["steps"], self._evaluated(declared) | env)
        return Job(
            {name: step for job in jobs.values() for name, step in job.steps.items()},
            [path for job in jobs.values() for path in job.kept],
            all(job.skipped for job in jobs.values()),
        )

    def _run_steps(self, steps: list[dict[str, Any]], env: Mapping[str, str]) -> None:
        self._values |= {f"env.{name}": value for name, value in env.items()}
        for step in steps:
            if not self._holds(str(step.get("if", "success()"))):
                continue
            if "run" in step:
                self._run_step(step, env)
            elif step["uses"].startswith("OWNER/ftbench@"):
                self._run_action(step, env)
            else:
                self._use(step["uses"].partition("@")[0], self._evaluated(step.get("with", {})))

    def _run_step(self, step: Mapping[str, Any], env: Mapping[str, str]) -> None:
        text = step["run"].replace(INSTALLS_FROM_AN_INDEX, "true")
        assert "${{" not in text, "a value that becomes shell text can be a command"
        own = self._evaluated(step.get("env", {}))
        shell = _SHELLS[step.get("shell", "")]
        done = self._repository.run(*shell, "-c", text, **(dict(env) | own))
        self._job.steps[step["name"]] = done
        outcome = "failure" if done.returncode else "success"
        self._values[f"steps.{step.get('id')}.outcome"] = outcome

    def _use(self, action: str, given: Mapping[str, str]) -> None:
        """Do what an action does to the files: artifacts are folders beside the checkout."""
        artifact = self._repository.folder.parent / "artifacts" / given.get("name", "")
        if action == "actions/checkout" and "ref" in given:
            self._repository.git("fetch", "--quiet", "origin")
            branch = f"origin/{BRANCH}"  # of the remote, not what the checkout has under this name
            _begin_anew(self._repository, branch if given["ref"] == BRANCH else given["ref"])
        elif action == "actions/upload-artifact":
            self._job.kept += given["path"].split()
            if Path(given["path"]).is_absolute():
                shutil.copytree(given["path"], artifact)
        elif action == "actions/download-artifact":
            shutil.copytree(artifact, given["path"])

    def _run_action(self, step: Mapping[str, Any], env: Mapping[str, str]) -> None:
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        given = step["with"] | ({"subject": env["SUBJECT"]} if "SUBJECT" in env else {})
        for name, declared in action["inputs"].items():
            self._values[f"inputs.{name}"] = str(given.get(name, declared.get("default")))
        assert given.keys() <= action["inputs"].keys()
        self._run_steps(action["runs"]["steps"], env)

    def _evaluated(self, env: Mapping[str, object]) -> dict[str, str]:
        """Return variables with the values of their expressions."""
        return {
            name: re.sub(r"\$\{\{ *(.+?) *\}\}", lambda m: str(self._value(m[1])), str(text))
            for name, text in env.items()
        }

    def _holds(self, condition: str) -> bool:
        """Return whether a condition holds; one without a status function also asks for success."""
        text = condition.strip().removeprefix("${{").removesuffix("}}")
        if not _STATUS.search(text):
            text = f"success() && ({text})"
        words = (
            _WORDS.get(word)
            or (word if re.match(r"'|==|!=|[()]", word) else repr(self._value(word)))
            for word in _TOKENS.findall(text)
        )
        return bool(eval(" ".join(words), {}))

    def _value(self, name: str) -> object:
        if file := re.fullmatch(r"hashFiles\('(.*)'\)", name):
            return "hash" if (self._repository.folder / file[1]).exists() else ""
        status: dict[str, Callable[[], bool]] = {
            "success()": lambda: not self._job.failed,
            "failure()": lambda: self._job.failed,
        }
        return status[name]() if name in status else self._values[name]


# GitLab


def gitlab(repository: Repository, name: str, **variables: str) -> Job:
    """Return what a job of GitLab's recipe came to, with those that it needs, which run before it.

    The `variables` of a pipeline precede the job's own.
    """
    jobs = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())
    job = _extended(jobs, name)
    variables = {"CI_COMMIT_SHA": repository.git("rev-parse", "HEAD").strip()} | variables
    service = _SERVICE | variables
    if not any(_rule_holds(rule["if"], service) for rule in job["rules"]):
        return Job(skipped=True)
    came_to = Job()
    for needed in job.get("needs", []):
        came_to.steps |= gitlab(repository, needed, **variables).steps
        _begin_anew(repository, service["CI_COMMIT_SHA"], jobs[needed].get("artifacts"))
    if came_to.failed:
        return came_to
    if "environment" in job:
        service["BASELINE_TOKEN"] = "secret"
    own = {
        n: v.replace("$CI_PROJECT_DIR", str(repository.folder)) for n, v in job["variables"].items()
    }
    script = "\n".join(_lines(job["before_script"]) + _lines(job["script"]))
    came_to.steps[name] = repository.run("bash", "-eo", "pipefail", "-c", script, **(own | service))
    artifacts = job.get("artifacts", {"paths": []})
    came_to.kept = artifacts["paths"] + artifacts.get("reports", {"junit": []})["junit"]
    return came_to


_SERVICE = {
    "CI_PIPELINE_SOURCE": "merge_request_event",
    "CI_MERGE_REQUEST_LABELS": "",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": BRANCH,
    "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": "",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_PATH": "us/foreign",
    "CI_MERGE_REQUEST_IID": "7",
    "CI_API_V4_URL": "https://gitlab.test:8443/git/api/v4",
    "CI_SERVER_HOST": "gitlab.test",
    "CI_PROJECT_ID": "3",
    "CI_PROJECT_PATH": "us/foreign",
    "CI_PROJECT_URL": "https://gitlab.test:8443/git/us/foreign",
}


def _extended(jobs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a job with the keys of what it extends."""
    job = jobs[name]
    return (_extended(jobs, job["extends"]) if "extends" in job else {}) | job


def _begin_anew(
    repository: Repository, commit: str, artifacts: Mapping[str, Any] | None = None
) -> None:
    """Check a commit out as a new job does, with nothing left of the last job but its artifacts."""
    kept = [f"--exclude=/{path}" for path in (artifacts or {"paths": []})["paths"]]
    repository.git("reset", "--quiet", "--hard")
    repository.git("clean", "-dfxq", "--exclude=.venv", *kept)
    repository.git("checkout", "--quiet", "--detach", commit)


def _lines(script: list[Any]) -> list[str]:
    """Return the lines of a script; a list among them stands for its own lines."""
    return [line for each in script for line in (each if isinstance(each, list) else [each])]


def _rule_holds(rule: str, variables: Mapping[str, str]) -> bool:
    """Return whether a rule holds: comparisons with a text, a variable or a pattern, all of them."""
    form = r'\$(\w+) (?:== "(.*)"|== \$(\w+)|=~ /(.*)/)'
    for part in rule.split(" && "):
        name, text, other, pattern = re.fullmatch(form, part).groups()
        value = variables[name]
        expected = variables[other] if other else text
        if not (re.search(pattern, value) if pattern else value == expected):
            return False
    return True
