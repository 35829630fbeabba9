"""The sampler as a real process, against a scripted driver and memory that was really taken."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftbench.worker.measure.meters import sampled
from ftbench.worker.measure.meters.sampled import SampledMemory
from ftbench.worker.measure.sampler.sampler import PSS_FLOOR_S

GIB = 2**30
PLANTED = 64 * 2**20
NEVER = 1e6  # a period floor under which only commands take samples: one frame of the driver each
IDLE = "frame used=0 processes="  # asked for twice until the card has settled


@pytest.fixture
def sampling():
    """Return a function that starts a sampler, which is ended after the test."""
    started = []

    def start(uuid="GPU-a", *, pss=False, period_floor_s=NEVER):
        started.append(SampledMemory(uuid, pss=pss, period_floor_s=period_floor_s))
        return started[-1]

    yield start
    for meter in started:
        meter.stop()


def used(device, process=None, **more):
    """Return a frame of the driver in GiB; `parent` of the sampler is this process."""
    listed = "" if process is None else f"processes=parent:{process * GIB}"
    return f"frame used={device * GIB} {listed} " + " ".join(f"{k}={v}" for k, v in more.items())


def until(condition, timeout_s=30.0):
    """Wait for something that comes; how soon decides nothing."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class TestPhases:
    def test_each_phase_has_its_own_peaks(self, driver, sampling):
        driver("card GPU-a", IDLE, IDLE, used(1, 1), used(3, 3), used(2, 2), used(1, 1))
        meter = sampling()
        assert meter.idle() == {"peak_device_bytes": 0}
        assert "CUDA" in meter.absent()["peak_process_bytes"]
        meter.start("load")
        meter.read()
        load = meter.read()
        assert load == {"peak_device_bytes": 3 * GIB, "peak_process_bytes": 3 * GIB}
        assert meter.absent() == {}
        meter.start("train")
        train = meter.read()  # it began at what the last one closed with
        assert train == {"peak_device_bytes": 2 * GIB, "peak_process_bytes": 2 * GIB}
        meter.stop()
        assert [(s["phase"], s["device_bytes"] // GIB) for s in meter.samples] == [
            ("load", 1),
            ("load", 3),
            ("load", 2),
            ("train", 1),
        ]

    def test_a_peak_between_commands_is_seen_by_sampling(self, driver, sampling):
        frames = [used(1, 1)] + [used(3, 3)] + [used(2, 2)] * 5
        driver("card GPU-a", IDLE, IDLE, *frames)
        meter = sampling(period_floor_s=0.0)
        meter.idle()
        meter.start("train")
        time.sleep(1)  # a few are taken here, the rest by reading
        until(lambda: meter.read()["peak_device_bytes"] == 3 * GIB)
        assert meter.read()["peak_process_bytes"] == 3 * GIB
        taken = meter.stop()
        assert taken.device_uuid == "GPU-a"
        assert taken.samples == len(meter.samples)
        assert taken.period_s > 0
        times = [sample["t_s"] for sample in meter.samples]
        assert times == sorted(times)
        assert times[-1] <= time.monotonic()

    def test_energy_is_the_counter_as_of_the_last_reading(self, driver, sampling):
        driver(
            "card GPU-a", used(0, energy=900), used(0), used(1, energy=2500), used(1, energy=9000)
        )
        meter = sampling()
        meter.idle()
        meter.start("train")
        began = meter.energy_j()
        meter.read()
        assert (began, meter.energy_j()) == (2.5, 9.0)
        meter.start("train")
        assert meter.energy_j() == 9.0

    def test_host_and_card_together(self, driver, sampling):
        driver("card GPU-a", IDLE, IDLE, used(1, 1))
        meter = sampling(pss=True)
        meter.idle()
        meter.start("train")
        assert set(meter.read()) == {"peak_pss_bytes", "peak_process_bytes", "peak_device_bytes"}
        assert set(meter.sources()) == set(meter.read())
        assert "smaps_rollup" in meter.sources()["peak_pss_bytes"]

    def test_the_cpu_alone_needs_no_driver(self, sampling):
        meter = sampling(None, pss=True)
        assert meter.idle()["peak_pss_bytes"] > 0
        meter.start("train")
        assert meter.read()["peak_pss_bytes"] > 0
        assert (meter.absent(), meter.withdrawn(), meter.energy_j()) == ({}, {}, None)


class TestCards:
    def test_the_idle_reading_waits_until_the_card_has_settled(self, driver, sampling):
        driver("card GPU-a", used(3), used(2), used(1), used(1), used(7))
        meter = sampling()
        assert meter.idle()["peak_device_bytes"] == GIB
        assert "note" not in {run_warning.name for run_warning in meter.run_warnings()}

    def test_the_other_of_two_cards(self, driver, sampling):
        driver("card GPU-b", used(9, 9), "card GPU-a", used(2, 1))
        meter = sampling("GPU-a")
        meter.start("train")
        assert meter.read() == {"peak_device_bytes": 2 * GIB, "peak_process_bytes": GIB}

    def test_version_1_is_named_as_the_source(self, driver, sampling):
        driver("v2 no", "card GPU-a", used(2))
        meter = sampling()
        meter.start("train")
        assert meter.read() == {"peak_device_bytes": 2 * GIB + 100 * 2**20}
        assert "v1" in meter.sources()["peak_device_bytes"]

    @pytest.mark.parametrize(
        ("processes", "reason"), [("77:5", "container"), ("parent:none", "MIG")]
    )
    def test_no_figure_of_the_process(self, driver, sampling, processes, reason):
        driver("card GPU-a", f"frame used={GIB} processes={processes}")
        meter = sampling()
        meter.start("train")
        assert meter.read() == {"peak_device_bytes": GIB}
        assert reason in meter.absent()["peak_process_bytes"]

    def test_a_lost_card_takes_its_earlier_peaks_along(self, driver, sampling):
        driver("card GPU-a", IDLE, IDLE, used(3, 3, energy=10), "frame error=15")
        meter = sampling(pss=True)
        meter.idle()
        meter.start("train")
        assert set(meter.read()) == {"peak_pss_bytes"}
        assert set(meter.withdrawn()) == {"peak_process_bytes", "peak_device_bytes"}
        assert meter.absent() == meter.withdrawn()
        assert "lost" in meter.absent()["peak_device_bytes"]
        assert meter.energy_j() is None

    @pytest.mark.parametrize("script", [(), ("card GPU-b", "frame used=1")])
    def test_no_driver_or_no_such_card(self, driver, sampling, script):
        driver(*script)
        meter = sampling()
        assert meter.idle() == {}
        meter.start("train")
        assert meter.read() == {}
        assert set(meter.absent()) == {"peak_process_bytes", "peak_device_bytes"}
        assert all(reason.startswith("NVML: ") for reason in meter.absent().values())
        assert meter.energy_j() is None


class TestCautions:
    def read(self, sampling, times=1):
        meter = sampling()
        meter.idle()
        meter.start("train")
        for _ in range(times):
            meter.read()
        return meter, {run_warning.name: run_warning for run_warning in meter.run_warnings()}

    def test_a_second_tenant(self, driver, sampling):
        both = f"frame used={4 * GIB} processes=parent:{2 * GIB},77:{GIB}"
        driver("card GPU-a", IDLE, IDLE, used(2, 2), both)
        meter, run_warnings = self.read(sampling)
        assert meter.read() == {"peak_device_bytes": 4 * GIB, "peak_process_bytes": 2 * GIB}
        assert (run_warnings["tenant"].value, run_warnings["tenant"].threshold) == (1.0, 0.0)
        assert "PID 77: 1.0 GiB" in run_warnings["tenant"].message

    def test_in_a_container_one_newcomer_may_be_this_process(self, driver, sampling):
        driver("card GPU-a", IDLE, IDLE, f"frame used={GIB} processes=77:{GIB}")
        assert "tenant" not in self.read(sampling)[1]

    @pytest.mark.parametrize(("before", "then"), [("55:5", "55:5,77:5"), ("", "77:5,88:5")])
    def test_in_a_container_more_than_one_is_a_tenant(self, driver, sampling, before, then):
        idle = f"frame processes={before}"
        driver("card GPU-a", idle, idle, f"frame processes={then}")
        assert self.read(sampling)[1]["tenant"].value == 1.0

    def test_clocks_that_were_held_down(self, driver, sampling):
        frames = [used(1, 1, reasons=mask) for mask in (1, 0x2C, 0x8, 0x4)]
        driver("card GPU-a", IDLE, IDLE, *frames)
        _, run_warnings = self.read(sampling, times=3)
        assert run_warnings["throttled"].value == pytest.approx(0.5)
        assert run_warnings["throttled"].threshold == sampled.THROTTLED_WARN
        assert "hardware slowdown, thermal limit" in run_warnings["throttled"].message

    def test_an_idle_card_is_not_throttled(self, driver, sampling):
        driver("card GPU-a", IDLE, IDLE, used(1, 1, reasons=3 | 0x4))  # nor one at its power cap
        assert "throttled" not in self.read(sampling)[1]

    def test_an_idle_run_costs_under_one_per_cent(self, driver):
        driver("card GPU-a", used(1, 1))
        code = (
            "import time; from ftbench.worker.measure.meters.sampled import SampledMemory\n"
            "meter = SampledMemory('GPU-a'); meter.idle(); meter.start('train'); time.sleep(4)\n"
            "meter.read(); print(meter.stop().model_dump_json())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        found = json.loads(done.stdout)
        assert found["cpu_share"] < 0.01
        assert found["period_s"] > PSS_FLOOR_S * 0.9

    def test_the_cost_of_sampling(self, driver, sampling, monkeypatch):
        driver("card GPU-a", used(1, 1))
        monkeypatch.setattr(sampled, "SAMPLING_COST_WARN", 0.0)
        meter = sampling(period_floor_s=0.0)
        meter.idle()
        meter.start("train")
        time.sleep(0.5)  # samples are taken beside the worker, which waits for none of them
        meter.read()
        (run_warning,) = (c for c in meter.run_warnings() if c.name == "sampling_cost")
        assert run_warning.value > 0


class TestEnds:
    def test_what_a_killed_sampler_said_is_given_out_no_more(self, driver, sampling):
        driver("card GPU-a", used(1, 1, energy=5))
        meter = sampling(pss=True)
        meter.idle()
        meter.start("train")
        assert meter.read()
        os.kill(meter.pid, signal.SIGKILL)
        assert meter.read() == {}
        assert set(meter.absent()) == {"peak_pss_bytes", "peak_process_bytes", "peak_device_bytes"}
        assert meter.absent() == meter.withdrawn()
        assert "SIGKILL" in meter.absent()["peak_pss_bytes"]
        assert (meter.energy_j(), meter.run_warnings(), meter.stop()) == (None, [], None)
        assert (meter.samples, meter.idle()) == ([], {})

    def test_a_sampler_that_hangs_is_ended(self, sampling, monkeypatch):
        meter = sampling(None, pss=True)
        meter.idle()
        os.kill(meter.pid, signal.SIGSTOP)
        monkeypatch.setattr(sampled, "ANSWER_TIMEOUT_S", 0.2)
        meter.start("train")
        assert "no answer to start" in meter.absent()["peak_pss_bytes"]
        assert ended(meter.pid)

    def test_it_ends_with_the_worker_even_if_a_child_holds_its_pipe(self):
        code = (
            "import os, time; from ftbench.worker.measure.meters.sampled import SampledMemory\n"
            "meter = SampledMemory(); meter.idle()\n"
            "child = os.fork()\n"
            "child or time.sleep(600)\n"
            "print(meter.pid, child, flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
            pid, child = map(int, worker.stdout.readline().split())
            try:
                assert not ended(pid)
                worker.kill()
                worker.wait()
                until(lambda: ended(pid))
            finally:
                os.kill(child, signal.SIGKILL)

    def test_stop_twice_is_stop_once(self, sampling):
        meter = sampling(None, pss=True)
        meter.start("train")
        assert meter.stop() is meter.stop()
        assert len(meter.samples) == 1


def test_a_figure_that_keeps_adding_is_told_from_a_constant_one(driver, sampling):
    growing = [used(step, 1) for step in range(1, 31)]
    driver("card GPU-a", *growing)
    meter = sampling()
    meter.start("train")
    for _ in growing[1:]:
        meter.read()
    growth = meter.stop().growth
    assert growth["peak_process_bytes"] == 1.0
    assert growth["peak_device_bytes"] > 1.4


@pytest.mark.parametrize("at", range(2, 29))
def test_one_step_up_is_no_growth_wherever_it_comes(at):
    # The widest batch comes once, and the caching allocator keeps what it took.
    samples = [
        {"t_s": t, "phase": "train", "pss_bytes": None, "process_bytes": 8 if t < at else 14}
        | {"device_bytes": 9 if t < at else 15}
        for t in range(30)
    ]
    assert sampled.growth_of(samples) == {"peak_process_bytes": 1.0, "peak_device_bytes": 1.0}


def test_growth_is_of_training_only_and_needs_twelve_samples(driver, sampling):
    driver("card GPU-a", used(1, 1))
    meter = sampling()
    for phase, reads in (("evaluation", 30), ("train", 11)):  # the second start reads nothing
        meter.start(phase)
        for _ in range(reads):
            meter.read()
    assert meter.stop().growth == {}


@pytest.mark.gpu
def test_a_planted_tensor_on_a_real_card():
    import torch

    from ftbench.worker.measure.device import describe
    from ftbench.worker.measure.meters.torch_cuda import TorchCudaMemory

    meter = SampledMemory(describe(torch.device("cuda", 0)).uuid)
    idle = meter.idle()
    allocator = TorchCudaMemory(torch.cuda)
    meter.start("train")
    allocator.start("train")
    block = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    figures = meter.read() | allocator.read()
    sampling = meter.stop()
    device = figures["peak_device_bytes"]
    process = figures.get("peak_process_bytes", device)  # a container's PID is not the driver's
    allocated, reserved = figures["peak_allocated_bytes"], figures["peak_reserved_bytes"]
    assert block.numel() <= allocated <= reserved <= process <= device
    assert device - idle["peak_device_bytes"] >= block.numel()
    assert sampling.samples >= 2
