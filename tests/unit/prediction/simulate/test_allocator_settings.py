import pytest

from ftbench.prediction.simulate.allocator_settings import AllocatorSettings


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"capacity_bytes": 0}, "capacity_bytes is 0"), ({"address_order": "up"}, "is 'up'")],
)
def test_settings_are_validated(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        AllocatorSettings(**options)
