import mmap
from typing import NamedTuple

import pytest

from ftbench.records.measurement import NOISY
from ftbench.records.readings import Load
from ftbench.worker.measure.meters.machine import (
    OTHERS_WARN,
    STEAL_WARN,
    SWAP_WARN,
    THROTTLE_WARN,
    MachineLoad,
    load_warnings,
)

QUIET = Load(average_start=0, average_end=0, others_cpu_share=0, steal_share=0)


class CpuTimes(NamedTuple):
    """As psutil gives them."""

    user: float = 0
    nice: float = 0
    system: float = 0
    idle: float = 9.99
    irq: float = 0
    softirq: float = 0
    steal: float = 0


class Machine:
    """A /proc, processors in /sys, a clock and processor time of our own, all planted."""

    def __init__(self, folder):
        self.proc, self.cpus = folder / "proc", folder / "cpu"
        self.seconds = self.own = 0.0
        self.busy = self.steal = self.swapped_in = self.swapped_out = self.own_swap_kib = 0
        self.throttled = [0, 0]
        self.write()

    def write(self):
        swaps = f"pswpin {self.swapped_in}\npswpout {self.swapped_out}\n"
        plant(self.proc / "vmstat", f"pgpgout 88\n{swaps}pgscan_direct 9\n")
        plant(self.proc / "self/status", f"VmRSS:\t  50 kB\nVmSwap:\t {self.own_swap_kib} kB\n")
        for core, events in enumerate(self.throttled):
            plant(self.cpus / f"cpu{core}/thermal_throttle/core_throttle_count", f"{events}\n")

    def meter(self):
        return MachineLoad(
            self.proc,
            self.cpus,
            clock=lambda: self.seconds,
            own_cpu=lambda: self.own,
            cpu_times=lambda: CpuTimes(user=self.busy, steal=self.steal),
            cores=2,
        )


def plant(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_shares_are_of_all_processors_time(machine):
    meter = machine.meter()
    machine.seconds, machine.own = 10.0, 12.0
    machine.busy, machine.steal = 17.0, 1.0  # 17 busy seconds, 12 of them ours; 1 stolen
    machine.write()
    load = meter.read()
    assert load.others_cpu_share == pytest.approx(5 / 20)
    assert load.steal_share == pytest.approx(1 / 20)


def test_our_own_work_is_not_somebody_elses(machine):
    meter = machine.meter()
    machine.seconds, machine.own, machine.busy = 10.0, 20.0, 20.0
    machine.write()
    assert meter.read().others_cpu_share == 0.0


def test_pages_swapped_are_those_since_the_start(machine):
    machine.swapped_in, machine.swapped_out = 500, 600
    machine.write()
    meter = machine.meter()
    assert meter.read().swapped_pages == 0
    machine.swapped_in, machine.swapped_out = 507, 630
    machine.write()
    assert meter.read().swapped_pages == 37


def test_our_pages_in_swap_count_where_they_are_more(machine):
    meter = machine.meter()
    machine.swapped_out, machine.own_swap_kib = 3, 5 * mmap.PAGESIZE // 1024
    machine.write()
    assert meter.read().swapped_pages == 5
    (machine.proc / "vmstat").unlink()
    assert meter.read().swapped_pages == 5


def test_a_kernel_without_swap_has_no_count(machine):
    meter = machine.meter()
    plant(machine.proc / "vmstat", "pgpgin 5\n")
    plant(machine.proc / "self/status", "VmRSS: 5 kB\n")
    assert meter.read().swapped_pages is None


def test_throttle_events_are_summed_over_the_processors(machine):
    machine.throttled = [10, 20]
    machine.write()
    meter = machine.meter()
    machine.throttled = [11, 23]
    machine.write()
    assert meter.read().throttle_events == 4
    (machine.cpus / "cpu1/thermal_throttle/core_throttle_count").unlink()  # taken offline
    assert meter.read().throttle_events == 0


def test_processors_that_count_nothing_have_no_throttle_events(machine, tmp_path):
    plant(tmp_path / "other" / "cpu0/topology/core_id", "0")
    assert MachineLoad(machine.proc, tmp_path / "other").read().throttle_events is None
    plant(machine.cpus / "cpu0/thermal_throttle/core_throttle_count", "unreadable")
    assert machine.meter().read().throttle_events is None


@pytest.mark.parametrize(
    ("field", "name", "threshold", "over", "said"),
    [
        ("others_cpu_share", "others_busy", OTHERS_WARN, 0.15, "other processes used 15%"),
        ("steal_share", "steal", STEAL_WARN, 0.10, "hypervisor took 10%"),
        ("swapped_pages", "swap", SWAP_WARN, SWAP_WARN + 1, "1001 pages were swapped"),
        ("throttle_events", "throttled", THROTTLE_WARN, 1, "throttled 1 times"),
    ],
)
def test_cautions_begin_over_their_thresholds(field, name, threshold, over, said):
    assert load_warnings(QUIET.model_copy(update={field: threshold})) == []
    (run_warning,) = load_warnings(QUIET.model_copy(update={field: over}))
    assert (run_warning.name, run_warning.value, run_warning.threshold) == (name, over, threshold)
    assert said in run_warning.message
    assert name in NOISY


def test_what_a_planted_machine_did_is_what_it_is_cautioned_for(machine):
    meter = machine.meter()
    machine.seconds = 10.0
    assert load_warnings(meter.read()) == []
    machine.busy, machine.steal, machine.swapped_in = 3.0, 2.0, 5000
    machine.throttled = [0, 2]
    machine.write()
    found = load_warnings(meter.read())
    assert [run_warning.name for run_warning in found] == [
        "others_busy",
        "steal",
        "swap",
        "throttled",
    ]
    assert [run_warning.value for run_warning in found] == pytest.approx([0.15, 0.10, 5000, 2])


def test_no_proc_no_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.PROCFS_PATH", str(tmp_path / "none"))
    load = MachineLoad(tmp_path / "none", tmp_path / "none").read()
    assert (load.others_cpu_share, load.steal_share) == (None, None)
    assert (load.swapped_pages, load.throttle_events) == (None, None)
    assert load_warnings(load) == []


def test_this_machine_can_be_read():
    load = MachineLoad().read()
    assert load.swapped_pages is None or load.swapped_pages >= 0
    assert load.throttle_events is None or load.throttle_events >= 0
