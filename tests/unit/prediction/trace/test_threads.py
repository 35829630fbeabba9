"""Memory of the card in other threads is refused, and what they do on the host is theirs."""

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.tracer import trace
from tests.unit.prediction.modules import calls


def hidden(work):
    """Run work in a thread that was started in the trace, and whose error nobody sees."""
    thread = Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture(scope="module")
def pool():
    """Return a thread that was there before the trace."""
    with ThreadPoolExecutor(1) as made:
        made.submit(int).result()
        yield made


def makes(device):
    return lambda: torch.ones(3, device=device)


def computes(device):
    tensor = torch.ones(3, device=device)
    return lambda: tensor + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("work", [makes, computes])
@pytest.mark.parametrize("start", ["hidden", "pool"])
def test_a_card_s_memory_in_another_thread_is_refused(work, start, pool):
    run = hidden if start == "hidden" else lambda task: pool.submit(task).result()
    with pytest.raises(PredictionError, match="in another thread"):
        trace(calls(lambda device: run(work(device))))
    trace(calls(lambda device: work(device)()))  # the next one is not affected


@pytest.mark.parametrize("start", ["hidden", "pool"])
def test_the_host_s_memory_is_a_thread_s_own(start, pool):
    made = []
    run = hidden if start == "hidden" else lambda task: pool.submit(task).result()
    found = trace(calls(lambda device: run(lambda: made.append(torch.ones(3) + 1))), steps=1)
    assert found.peak_bytes == 0
    assert [type(tensor) for tensor in made] == [torch.Tensor]
