import pytest

from ftbench.records.messages import (
    CellRequest,
    Event,
    StepFlops,
    WorkspaceRequest,
    of_rank,
    tokenised_key,
)
from tests.factories import cell, grid, preparation


def test_a_request_survives_json():
    request = CellRequest(
        cell=cell(),
        replicate=1,
        seed=43,
        device="cpu",
        preparation=preparation(),
        output="o",
        steps_file="s",
        samples_file="m",
        reports="l/abc-r0",
    )
    assert CellRequest.model_validate_json(request.model_dump_json()) == request


def test_cells_share_tokenised_pools_by_padding_and_length():
    assert tokenised_key(cell()) == tokenised_key(cell(train_size=8)) == "max_length-16"
    assert tokenised_key(cell(padding="longest")) == "longest-16"
    (joined, *_) = grid(workload={"task": "causal-lm"}, packing="concatenate").cells
    assert tokenised_key(joined).endswith("-concatenate")


def test_an_event_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        Event.model_validate({"kind": "pickle", "body": {}})


def test_the_flops_of_a_method_are_its_own_and_those_of_full_fine_tuning_the_models():
    lora = StepFlops(coefficients=(0, 4, 1))
    made = preparation(flops_by_method={"lora": lora})
    assert made.step_flops("full") == StepFlops(coefficients=(0, 10, 1))
    assert made.step_flops("lora") == lora
    unknown = preparation(flops=None, flops_absent="no formula")
    assert unknown.step_flops("full") == StepFlops(absent="no formula")


def test_names_of_a_request_are_in_its_workspace():
    assert WorkspaceRequest(workspace="/run").path("steps/a.parquet") == "/run/steps/a.parquet"
    assert WorkspaceRequest().path("steps/a.parquet") == "steps/a.parquet"


@pytest.mark.parametrize(
    ("name", "own"),
    [("logs/a.log", "logs/a-rank1.log"), ("logs/a.b.log", "logs/a.b-rank1.log")],
)
def test_a_rank_has_files_of_its_own(name, own):
    assert of_rank(name, 1) == own
