import pytest

from bench.worker.meters.machine import MachineLoad, load_warnings


class Machine:
    """A /proc/stat, a clock and processor time of our own, all planted."""

    def __init__(self, folder):
        self.file = folder / "stat"
        self.seconds = self.own = 0.0
        self.busy = self.steal = 0
        self.write()

    def write(self):
        self.file.write_text(f"cpu  {self.busy} 0 0 999 5 0 0 {self.steal} 0 0\ncpu0 1 1 1\n")

    def meter(self):
        return MachineLoad(self.file, clock=lambda: self.seconds, own_cpu=lambda: self.own, cores=2)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.worker.meters.machine.os.sysconf", lambda name: 100)
    return Machine(tmp_path)


def test_shares_are_of_all_processors_time(machine):
    meter = machine.meter()
    machine.seconds, machine.own = 10.0, 12.0
    machine.busy, machine.steal = 1700, 100  # 17 busy seconds, 12 of them ours; 1 stolen
    machine.write()
    load = meter.read()
    assert load.others_cpu_share == pytest.approx(5 / 20)
    assert load.steal_share == pytest.approx(1 / 20)


def test_our_own_work_is_not_somebody_elses(machine):
    meter = machine.meter()
    machine.seconds, machine.own, machine.busy = 10.0, 20.0, 2000
    machine.write()
    assert meter.read().others_cpu_share == 0.0


def test_warnings_begin_at_their_thresholds(machine):
    meter = machine.meter()
    machine.seconds = 10.0
    assert load_warnings(meter.read()) == []
    machine.busy, machine.steal = 300, 200
    machine.write()
    warnings = load_warnings(meter.read())
    assert "other processes took 15%" in warnings[0]
    assert "hypervisor took 10%" in warnings[1]


def test_no_proc_no_shares(tmp_path):
    load = MachineLoad(tmp_path / "none").read()
    assert (load.others_cpu_share, load.steal_share) == (None, None)
    assert load_warnings(load) == []
