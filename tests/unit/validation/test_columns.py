"""Tests of the predicted columns, on a planted trace."""

import torch

from ftbench.plan.gpus import find_gpu
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.simulate.simulation import simulate_all
from ftbench.prediction.trace.tracer import trace
from tests.validation.columns import columns, unsplit_bytes


def test_weights_can_be_in_blocks_of_one_mebibyte_more():
    def factory(device):
        model = torch.nn.Sequential(
            torch.nn.Linear(1024, 1024), torch.nn.Linear(1024, 8), torch.nn.Linear(1024, 1024)
        ).to(device)
        batch = torch.zeros(2, 1024, device=device)

        def step():
            loss = (model[0](batch).sum() + model[1](batch).sum()) + model[2](batch).sum()
            loss.backward()

        return step

    traced = trace(factory, steps=1)
    assert unsplit_bytes(traced) == 2 * 2**20  # 4 MiB each; the small one is not
    card = card_of(find_gpu("a100-80gb"), (2, 4))
    simulated = simulate_all([traced], card.runtime, card.capacities)
    plain, wide = (columns(simulated, extra) for extra in (0, 2**20))
    assert wide["predicted_allocated_high_bytes"] == plain["predicted_allocated_high_bytes"] + 2**20
    least, _ = simulated.interval("peak_requested_bytes")
    assert wide["predicted_allocated_low_bytes"] == least < plain["predicted_allocated_low_bytes"]
