"""Tables: every figure where it belongs."""

from ftbench.report.elements.table import ABSENT
from studies.memory_claim import tables
from studies.memory_claim.names import MODELS, by_hand, settings_of, variant
from tests.unit.studies.memory_claim.planted import BATCH, FLOOR, OVER, planted

ANSWERS = planted()


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def test_rows_are_as_wide_as_their_tables():
    found = [
        *(tables.exponents_table(ANSWERS, model) for model in MODELS),
        tables.laws_table(ANSWERS),
        tables.cards_table(ANSWERS, "modernbert", BATCH),
        tables.sizes_table("sizes", ANSWERS.family),
        tables.options_table(ANSWERS),
        tables.beside_table(ANSWERS, {}),
    ]
    for table in found:
        assert {len(row) for row in table.rows} == {len(table.columns)} == {len(table.numeric)}


def test_a_doubling_on_the_floor_has_no_power_of_its_own():
    table = tables.exponents_table(ANSWERS, "distilbert")
    eager = dict(zip(table.columns, table.rows[0], strict=True))
    assert eager["attention"] == "eager"
    assert "(" not in eager["64 to 128"]  # from model state to activations
    assert "(" in eager["256 to 512"]


def test_laws_stand_beside_what_is_counted_by_hand():
    table = tables.laws_table(ANSWERS)
    squares, hand = (
        column(table, "square: bytes per token²"),
        column(table, "of that kept, by hand"),
    )
    found = [(seen, told) for seen, told in zip(squares, hand, strict=True) if seen != ABSENT]
    assert len(found) >= 10
    assert all(seen == told for seen, told in found)
    assert {"648", "24", "1,056", "88", "56", "108", "48", "4"} <= {told for _, told in found}


def test_the_series_to_be_measured_has_no_row():
    assert all(setting.batch == BATCH for setting in settings_of(ANSWERS, "distilbert"))


def test_names_tell_series_apart():
    for model, shape in MODELS.items():
        settings = settings_of(ANSWERS, model)
        assert len({variant(setting) for setting in settings}) == len(settings) == 6
        assert all(
            by_hand(s) <= shape.heads * shape.saved_bytes for s in settings if s.checkpointing
        )


def test_a_card_that_is_too_small_says_so():
    table = tables.cards_table(ANSWERS, "modernbert", BATCH)
    assert set(column(table, "h100")) == {"does not fit"}
    assert set(column(table, "t4")) == {"100 MiB / 110 MiB / 120 MiB"}


def test_state_bytes_a_parameter_are_of_the_smallest_step():
    table = tables.sizes_table("sizes", ANSWERS.family)
    parameters = ANSWERS.family[0].parameters
    assert column(table, "state bytes per parameter")[0] == f"{16 + OVER / parameters:.4f}"
    assert column(table, "power")[0] == ABSENT


def test_measured_and_predicted_stand_side_by_side():
    table = tables.beside_table(ANSWERS, {"a": 990})
    assert column(table, "measured") == ["990", ABSENT]
    assert column(table, "difference") == ["+10 (+1.010%)", ABSENT]


def test_shares_are_of_lengths_that_all_have():
    settings = settings_of(ANSWERS, "distilbert")[:2]
    table = tables.shares_table(ANSWERS, "distilbert", settings)
    assert column(table, "length") == ["64", "128", "256", "384", "416", "448", "512"]
    assert table.rows[0][1] == f"{FLOOR / 2**20:.0f} MiB (100%)"
