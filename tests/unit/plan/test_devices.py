import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan import devices
from ftbench.plan.devices import Placement, choose_device

UUIDS = ["GPU-1", "GPU-2"]


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(devices, "_uuids", lambda: list(UUIDS))


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(devices, "_uuids", list)


def test_auto_without_a_card_is_the_cpu(no_card):
    chosen = choose_device("auto", {})
    assert chosen.kind == "cpu"
    assert chosen.environment["CUDA_VISIBLE_DEVICES"] == ""


def test_auto_takes_one_card_by_uuid(two_cards):
    chosen = choose_device("auto", {})
    assert (chosen.kind, chosen.devices, chosen.world_size) == ("cuda", ("GPU-1",), 1)


@pytest.mark.parametrize(
    ("setting", "processes", "cards"),
    [
        ("auto", 2, ("GPU-1", "GPU-2")),
        ("cuda", 2, ("GPU-1", "GPU-2")),
        ("GPU-2", 2, ("GPU-2", "GPU-1")),
        ("auto", 1, ("GPU-1",)),
        ("GPU-2", 5, ("GPU-2", "GPU-1")),
    ],
)
def test_a_card_for_each_process_as_far_as_there_are(two_cards, setting, processes, cards):
    assert choose_device(setting, {}, processes=processes).devices == cards


def test_a_card_by_uuid(two_cards):
    assert choose_device("GPU-2", {}).devices == ("GPU-2",)


def test_a_placement_on_two_cards_shows_a_worker_the_first():
    two = Placement(kind="cuda", devices=("GPU-2", "GPU-1"))
    assert two.environment["CUDA_VISIBLE_DEVICES"] == "GPU-2"
    assert two.world_size == 2
    assert Placement(kind="cpu").world_size == 1


@pytest.mark.parametrize(
    ("kind", "cards"), [("cuda", ()), ("cpu", ("GPU-1",)), ("cuda", ("GPU-1", "GPU-1"))]
)
def test_a_placement_that_cannot_be(kind, cards):
    with pytest.raises(ValueError, match="devices"):
        Placement(kind=kind, devices=cards)


def test_cpu_beside_a_card(two_cards):
    assert choose_device("cpu", {}).kind == "cpu"


@pytest.mark.parametrize(("visible", "first"), [("1,0", "1"), ("GPU-2", "GPU-2"), ("0", "0")])
def test_the_users_own_choice_of_cards_holds(two_cards, visible, first):
    assert choose_device("cuda", {"CUDA_VISIBLE_DEVICES": visible}).devices == (first,)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_cards_that_the_user_hid(two_cards, visible):
    assert choose_device("auto", {"CUDA_VISIBLE_DEVICES": visible}).kind == "cpu"


@pytest.mark.parametrize("setting", ["cuda", "GPU-9"])
def test_a_card_that_is_not_there(no_card, setting):
    with pytest.raises(ProfileError, match="no such device"):
        choose_device(setting, {})


def test_without_a_driver_there_is_no_card():
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert devices._uuids() == []
    else:
        assert all(uuid.startswith(("GPU-", "MIG-")) for uuid in devices._uuids())
