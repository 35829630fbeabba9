"""Conditions: values, lists, ranges, and their negation."""

import pytest

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.plan.profile_file import load_profile
from ftbench.plan.resolve import resolve
from tests.factories import profile
from tests.unit.worker.data.sources import examples_of, pools_of, written

HEADER = "text,label,stars,lang,year,gold"


@pytest.fixture
def file(tmp_path):
    rows = [
        f"{n},{n % 2},{n % 5},{('en', 'de', 'fr')[n % 3]},{2000 + n // 4}.5,{n % 2 == 0}"
        for n in range(60)
    ]
    return written(tmp_path / "d.csv", "\n".join([HEADER, *rows]))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"stars": 3}, lambda n: n % 5 == 3),
        ({"stars": {"not": 3}}, lambda n: n % 5 != 3),
        ({"stars": {"not": [1, 3]}}, lambda n: n % 5 not in (1, 3)),
        ({"stars": [1, 3]}, lambda n: n % 5 in (1, 3)),
        ({"stars": {"from": 2, "to": 3}}, lambda n: n % 5 in (2, 3)),
        ({"stars": {"from": 2, "not": 3}}, lambda n: n % 5 in (2, 4)),
        ({"year": {"from": 2010}}, lambda n: n // 4 >= 10),
        ({"lang": ["en", "de"], "stars": {"to": 1}}, lambda n: n % 3 < 2 and n % 5 < 2),
        ({"lang": {"from": "e"}}, lambda n: n % 3 != 1),
        ({"gold": {"not": True}, "lang": "en", "label": 1}, None),
    ],
)
def test_rows_are_kept(file, where, kept):
    if kept is None:
        with pytest.raises(WorkloadError, match="only one class"):
            pools_of(file, where=where)
        return
    found = set(map(int, examples_of(pools_of(file, where=where))))
    assert found == {n for n in range(60) if kept(n)}


@pytest.mark.parametrize(
    "where", [{"lang": 3}, {"stars": "three"}, {"stars": {"from": "a"}}, {"lang": {"not": [True]}}]
)
def test_a_value_of_another_type_is_refused(file, where):
    with pytest.raises(WorkloadError, match="cannot be compared"):
        pools_of(file, where=where)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("{ stars = {} }", "needs `not`, `from` or `to`"),
        ("{ stars = { from = 3, to = 2 } }", "must not be greater"),
        ("{ stars = { from = 3, to = 'x' } }", "both be numbers"),
        ("{ stars = { fron = 3 } }", "unknown key"),
        ("{ stars = [] }", "workload.where.stars"),
    ],
)
def test_a_condition_that_means_nothing(where, what):
    with pytest.raises(ProfileError, match=what) as caught:
        load_profile("smoke", [f"workload.where={where}"])
    if what == "unknown key":
        assert (caught.value.expected, caught.value.nearest) == ("one of not, from, to", "from")
        assert caught.value.where.endswith("workload.where.stars.fron")


def test_plain_values_name_the_same_cells_as_before_there_were_conditions():
    def ids(**workload):
        return [c.cell_id for c in resolve(profile(workload=workload)).cells]

    conditions = {"source": {"not": "imdb"}}
    assert ids(where={"source": "imdb"}) == ids()
    assert ids(where=conditions) == ids(where=conditions) != ids()


def test_a_cell_keeps_its_conditions_in_a_record():
    (first, *_) = resolve(profile(workload={"where": {"source": {"not": ["a", "b"]}}})).cells
    again = type(first).model_validate_json(first.model_dump_json())
    assert again == first
    assert again.cell_id == first.cell_id
    assert '"not": ["a", "b"]' in first.facets["where"]
