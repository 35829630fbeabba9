"""The plugin, in test runs of its own: limits, baselines, what a failure shows."""

import json

import pytest

# A test run inside this process imports again what was not imported before it, and torch cannot be imported twice.
import ftbench.gating.baseline_file
import ftbench.gating.compare
import ftbench.gating.pytest_benchmark
import ftbench.prediction.predict_cells
import ftbench.prediction.simulate.cards
import ftbench.report.commands.gate_steps  # noqa: F401

pytest_plugins = ["pytester"]

STEPS = """
import torch
from torch import nn

WIDTH = 64

def make_step(device):
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.ones(8, WIDTH, device=device)

    def step():
        model(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
"""
COMPARES = STEPS + '\ndef test_net(gpu_memory):\n    gpu_memory.compare("net", make_step)\n'


@pytest.fixture
def run(pytester):
    """Run a test file with the plugin, in this process: that takes a tenth of the time of one of its own."""

    def run(text, *arguments):
        pytester.makepyfile(test_it=text)
        # Hypothesis would be imported anew in each, for its summary.
        return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)

    return run


@pytest.fixture
def run_apart(pytester):
    """Run a test file with the plugin, in a process of its own, as a user does."""

    def run(text, *arguments):
        pytester.makepyfile(test_it=text)
        return pytester.runpytest_subprocess(*arguments)

    return run


def test_steps_within_a_limit_pass(run):
    run(
        STEPS
        + '\ndef test_it(gpu_memory):\n    assert gpu_memory.check(make_step, limit="1 MiB") > 0\n'
    ).assert_outcomes(passed=1)


def test_steps_above_a_limit_fail_and_show_what_the_peak_is(run):
    done = run(
        STEPS + '\ndef test_it(gpu_memory):\n    gpu_memory.check(make_step, limit="1 KiB")\n'
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*tensors request * at the peak*above the limit of 1.0 KiB*",
            "*gpu memory*",
            "*parameters*",
        ]
    )


def test_a_card_s_allocator_reserves_in_segments(run):
    text = STEPS + (
        "\ndef test_it(gpu_memory):\n"
        '    assert gpu_memory.check(make_step, limit="1 GiB", gpu="t4") % 2**21 == 0\n'
    )
    run(text).assert_outcomes(passed=1)


def test_without_a_baseline_it_fails_and_says_how_to_write_one(run):
    done = run(COMPARES)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*--gpu-memory-update*"])


def test_a_baseline_is_written_beside_the_test_and_holds(run_apart, pytester):
    run = run_apart
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    file = pytester.path / "gpu_memory" / "test_it" / "net.json"
    assert json.loads(file.read_text())["profile"] == "net"
    run(COMPARES).assert_outcomes(passed=1)


def test_more_fails_and_names_the_part(run):
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    done = run(COMPARES.replace("lr=0.1", "lr=0.1, momentum=0.9"))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*net: the peak is * in the baseline (+*",
            "*gpu memory*",
            "*`pytest test_it.py::test_net --gpu-memory-update`*",
            "step: the peak rose from * to * bytes (+*",
            "*optimizer state*(test_it.py:*",
            "* in all (+* bytes)",
        ]
    )


def test_less_fails_too(run):
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    done = run(COMPARES.replace("WIDTH = 64", "WIDTH = 32"))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*net: the peak is * in the baseline (-*"])


def test_another_order_of_definitions_passes(run):
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    other = COMPARES.replace("WIDTH = 64\n", "# a comment\nWIDTH = 2 * 32\n")
    run(other).assert_outcomes(passed=1)


def test_a_baseline_of_other_versions_is_not_judged(run, pytester):
    run(COMPARES, "--gpu-memory-update")
    file = pytester.path / "gpu_memory" / "test_it" / "net.json"
    data = json.loads(file.read_text())
    data["versions"]["torch"] = "1.0.0"
    file.write_text(json.dumps(data))
    done = run(COMPARES)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*cannot be judged*torch 1.0.0 -> *"])
    run(COMPARES, "--gpu-memory-across-versions").assert_outcomes(passed=1)


def test_what_was_checked_last_can_be_compared(run):
    text = STEPS + (
        "\ndef test_it(gpu_memory):\n"
        '    gpu_memory.check(make_step, limit="1 MiB")\n'
        '    gpu_memory.compare("net")\n'
    )
    run(text, "--gpu-memory-update").assert_outcomes(passed=1)
    run(text).assert_outcomes(passed=1)


def failed(done):
    """Return what pytest shows of the failures, and check that none of it is our own code."""
    text = done.stdout.str()
    shown = text[text.index("= FAILURES =") :]
    for internal in (
        "pytest_plugin.py",
        "tracer.py",
        "Traceback",
        "During handling",
        "direct cause",
    ):
        assert internal not in shown
    return shown


WRONG_USES = {
    'compare("net")': "needs the steps",
    'compare("../net", make_step)': "not a name for a file",
    'check(make_step, limit="1 XB")': "limit=",
    'check(make_step, limit="1 GiB", gpu="t5")': "gpu=: no such GPU",
    'check(make_step, limit="1 GiB", steps=0)': "no steps",
    'check(lambda device: lambda: torch.ones(3), limit="1 GiB")': "no tensor on the card",
    "check(lambda device: lambda: torch.cuda.mem_get_info(), limit=1)": "particular card",
}


def test_a_wrong_use_is_said_and_nothing_else(run):
    tests = (
        f"\ndef test_{number}(gpu_memory):\n    gpu_memory.{call}\n"
        for number, call in enumerate(WRONG_USES)
    )
    done = run(STEPS + "".join(tests))
    done.assert_outcomes(failed=len(WRONG_USES))
    shown = failed(done)
    assert [said for said in WRONG_USES.values() if said not in shown] == []
    assert "--gpu:" not in shown


@pytest.mark.parametrize("in_ci", [False, True])
def test_how_a_baseline_is_written_is_said_once(run, in_ci, monkeypatch):
    # In CI, pytest's summary repeats the failures whole.
    for variable in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)
    if in_ci:
        monkeypatch.setenv("CI", "true")
    shown = failed(run(COMPARES))
    assert shown.count("--gpu-memory-update") == 1
    assert "ftbench baseline" not in shown
    run(COMPARES, "--gpu-memory-update")
    shown = failed(run(COMPARES.replace("lr=0.1", "lr=0.1, momentum=0.9")))
    assert shown.count("--gpu-memory-update") == 1


def test_two_tests_do_not_share_a_baseline(run):
    text = STEPS + (
        "\nimport pytest\n"
        '@pytest.mark.parametrize("width", [1, 2])\n'
        'def test_net(gpu_memory, width):\n    gpu_memory.compare("net", make_step)\n'
    )
    done = run(text, "--gpu-memory-update")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*another test wrote this baseline*", "*test_net[[]1]*"])


def test_an_error_in_the_steps_shows_their_own_code(run):
    text = (
        "def make_step(device):\n    raise RuntimeError('of mine')\n\n"
        'def test_it(gpu_memory):\n    gpu_memory.check(make_step, limit="1 GiB")\n'
    )
    shown = failed(run(text))
    assert "RuntimeError: of mine" in shown
    assert "test_it.py:2" in shown


def test_parts_add_up_to_the_peak(run):
    text = STEPS + "\ndef test_it(gpu_memory):\n    gpu_memory.check(make_step, limit=1{})\n"
    for gpu in ("", ', gpu="t4"'):
        shown = failed(run(text.replace("{}", gpu)))
        lines = shown[shown.index("tensors at their peak") :].splitlines()[1:]
        sizes = [
            float(size) * {"B": 1, "KiB": 1024}[unit]
            for size, unit in (line.split()[:2] for line in lines if line.startswith("   "))
        ]
        assert sum(sizes[:-1]) == pytest.approx(sizes[-1], rel=0.02)
        assert ("segments" in shown) == bool(gpu)


GROWS = """
import torch

def making(every, on=True, count=1):
    def make_step(device):
        model = torch.nn.Linear(8, 8, device=device)
        many = [torch.ones(8 // count, device=device) for _ in range(count)]
        kept, steps = [], []

        def step():
            steps.append(many)
            loss = model(torch.ones(2, 8, device=device)).sum()
            loss.backward()
            model.zero_grad()
            if on and len(steps) % every == 0:
                kept.append(torch.ones(1, device=device))

        return step

    return make_step

"""


def test_a_leak_is_named_in_a_check(run):
    body = 'def test_it(gpu_memory):\n    gpu_memory.check(making(4), limit="1 GiB"{})\n'
    run(GROWS + body.format("")).assert_outcomes(passed=1)  # three steps do not show it
    run(GROWS + body.format(", steps=9, allow_growth=True")).assert_outcomes(passed=1)
    done = run(GROWS + body.format(", steps=9"))
    done.assert_outcomes(failed=1)
    shown = failed(done)
    assert "4 B more (4 bytes) after the last 4 steps" in shown
    assert "aten::ones (test_it.py:" in shown


def test_growth_and_the_number_of_tensors_are_compared(run):
    body = 'def test_it(gpu_memory):\n    gpu_memory.compare("net", making(4, {}), steps=9)\n'
    run(GROWS + body.format("False"), "--gpu-memory-update").assert_outcomes(passed=1)
    run(GROWS + body.format("False")).assert_outcomes(passed=1)
    shown = failed(run(GROWS + body.format("True")))
    assert "growth over the last steps: 4, 0 in the baseline" in shown
    shown = failed(run(GROWS + body.format("False, count=8")))
    assert "live tensors at the peak: 15, 8 in the baseline (+7)" in shown
    other = body.replace("steps=9", "steps=10")
    assert "steps 9 -> 10" in failed(run(GROWS + other.format("False")))
    run(GROWS + body.format("True"), "--gpu-memory-update").assert_outcomes(passed=1)
    run(GROWS + body.format("True")).assert_outcomes(passed=1)  # accepted


GUARDED = """
import functools, torch

@functools.lru_cache
def mask(device=None): return torch.ones(512, 64, device=device)

def make_step(device):
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))).to(device)

    def step():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda" and ON):
            loss = model(mask(device)).sum()
        loss.backward()

    return step

def test_it(gpu_memory):
    gpu_memory.compare("net", make_step)

def test_again(gpu_memory):
    gpu_memory.compare("again", make_step)

def test_an_ordinary_run():
    assert mask().sum() == 512 * 64
"""


def test_mixed_precision_that_is_lost_on_a_card_is_noticed_and_caches_are_not(run):
    on = GUARDED.replace("ON", "True")
    run(on, "--gpu-memory-update").assert_outcomes(passed=3)
    run(on, "-p", "no:randomly").assert_outcomes(passed=3)
    run(GUARDED.replace("ON", "False")).assert_outcomes(failed=2, passed=1)


def test_a_benchmark_carries_the_peak(run_apart, pytester, monkeypatch):
    run = run_apart
    monkeypatch.delenv(
        "PYTEST_XDIST_WORKER", raising=False
    )  # pytest-benchmark measures nothing there
    text = STEPS + (
        "\ndef test_it(gpu_memory, benchmark):\n"
        "    peak = gpu_memory.check(make_step, limit='1 MiB')\n"
        "    benchmark(lambda: None)\n"
        "    assert benchmark.extra_info['gpu_memory_peak_bytes'] == peak\n"
    )
    run(text, f"--benchmark-json={pytester.path / 'bench.json'}", "-p", "no:xdist").assert_outcomes(
        passed=1
    )
    (found,) = json.loads((pytester.path / "bench.json").read_text())["benchmarks"]
    assert found["extra_info"]["gpu_memory_peak_bytes"] > 0


def test_over_xdist(run_apart):
    run = run_apart
    two = COMPARES + '\ndef test_other(gpu_memory):\n    gpu_memory.compare("other", make_step)\n'
    run(two, "-n", "2", "--gpu-memory-update").assert_outcomes(passed=2)
    done = run(two.replace("lr=0.1", "lr=0.1, momentum=0.9"), "-n", "2")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*gpu memory*", "*optimizer state*"])


def test_loading_the_plugin_loads_nothing_heavy(pytester):
    pytester.makepyfile(
        "import sys\n\ndef test_it():\n"
        "    assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
