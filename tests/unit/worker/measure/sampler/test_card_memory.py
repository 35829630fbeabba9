import pytest

from ftbench.worker.measure.meters.nvml import CardReading
from ftbench.worker.measure.sampler.card_memory import SETTLE_S, CardMemory

GIB = 2**30


def test_a_card_that_never_settles_is_read_all_the_same():
    class Restless:
        used = 0

        def read(self):
            self.used += GIB
            return CardReading(device_bytes=self.used)

    waits = []
    reading, settled = CardMemory(Restless()).settle(waits.append)
    assert not settled
    assert sum(waits) == pytest.approx(SETTLE_S)
    assert reading.figures["peak_device_bytes"] == (len(waits) + 1) * GIB
