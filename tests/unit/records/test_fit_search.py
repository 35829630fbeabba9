"""The request of a search for what fits: its predictions have its options."""

from ftbench.plan.gpus import find_gpu
from ftbench.records.fit_search import FitRequest
from ftbench.records.prediction import PredictRequest
from tests.factories import cell


def test_predictions_of_a_search_have_its_options():
    card = find_gpu("t4")
    search = FitRequest(
        variants=(), gpu=card, attention="math", expandable_segments=True, processes=3
    )
    one, other = cell(), cell(max_length=32)
    assert search.predictions_of(one, other, gpus=(card,), largest=True) == PredictRequest(
        cells=(one, other),
        gpus=(card,),
        largest_batch=True,
        attention="math",
        expandable_segments=True,
        smallest_rank=False,
        processes=3,
    )
    assert not search.predictions_of(one, gpus=(card,), largest=False).largest_batch
