"""The memory of one shape, as a table of cards and a line."""

from ftbench.plan.gpus import find_gpu
from ftbench.report.commands.estimate_memory import cards_table, legend, peak_text
from tests.factories import composition, figure, predicted_card, predicted_cell

GPUS = [find_gpu(name) for name in ("t4", "l4", "h100")]


def test_a_card_has_what_is_needed_its_total_and_a_verdict():
    cards = (
        predicted_card("t4", verdict="does not fit"),
        predicted_card("l4", verdict="too close to call"),
        predicted_card("h100", process=figure(300, 200, 400)),
    )
    table = cards_table(predicted_cell("a", cards=cards), GPUS)
    assert table.columns == ("card", "needed", "total", "fits")
    assert table.rows == (
        ("t4", "more than 14.8 GiB", "14.8 GiB", "no"),
        ("l4", "about 22.2 GiB", "22.2 GiB", "close"),
        ("h100", "300 MiB (200 MiB to 400 MiB)", "79.2 GiB", "fits"),
    )


def test_the_peak_in_a_line_has_the_words_of_those_who_ask():
    said = peak_text(predicted_cell("a", composition=composition()))
    assert said == (
        "Tensors at their peak: 90.0 MiB (weights 60.0 MiB, activations 30.0 MiB). The peak is reached in the"
        " backward phase of step 2, by aten::mm of layer."
    )


def test_the_peak_is_that_on_the_first_of_several_cards():
    cell = predicted_cell("a", "t4", "h100", composition=composition())
    assert peak_text(cell).startswith("Tensors at their peak, as on t4: 90.0 MiB (")
    alone = predicted_cell("a", "t4", composition=composition())
    assert peak_text(alone).startswith("Tensors at their peak: 90.0 MiB (")


def test_the_classes_that_are_assumed_are_said():
    said, command = legend("own", "text-classification")
    assert "two classes" in said
    assert command.endswith("ftbench predict own.toml --gpu all")
    assert "classes" not in next(legend("own", "text-regression"))
