"""The plugin, in test runs of its own: limits, baselines, what a failure shows."""

import json

import pytest

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
    """Run a test file with the plugin, in a process of its own."""

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


def test_a_baseline_is_written_beside_the_test_and_holds(run, pytester):
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    file = pytester.path / "gpu_memory" / "test_it" / "net.json"
    assert json.loads(file.read_text())["profile"] == "net"
    run(COMPARES).assert_outcomes(passed=1)


def test_more_fails_and_names_the_part(run):
    run(COMPARES, "--gpu-memory-update").assert_outcomes(passed=1)
    done = run(COMPARES.replace("lr=0.1", "lr=0.1, momentum=0.9"))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["*net: the peak is * in the baseline (+*", "*gpu memory*", "*optimizer state*"]
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


@pytest.mark.parametrize("call", ['compare("net")', 'compare("../net", make_step)'])
def test_a_wrong_use_is_said(run, call):
    done = run(STEPS + f"\ndef test_it(gpu_memory):\n    gpu_memory.{call}\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*UsageError*"])


def test_a_benchmark_carries_the_peak(run, pytester, monkeypatch):
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


def test_over_xdist(run):
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
