import pytest

from ftbench.analysis.fits.laws import Interval, Refusal
from ftbench.analysis.fits.reasons import NoneHeldOut, TooFewSeeds
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.report.sections.headlines import headlines, stats, times
from tests.factories import cell, measurement, record, score
from tests.unit.report.charts.made_up import MEASURED, exponent, group, learning_curve


def said(*groups, curves=(), records=MEASURED):
    return headlines(cells_table(records), varying_axes(records), groups, curves)


def test_what_a_doubling_costs_in_time_and_memory():
    memory = exponent("peak_rss_bytes", low=0.45, high=0.5)
    assert (
        "Doubling the length from 128 to 256 (batch 8) costs 1.9 to 2.1 times the step time and"
        " 1.37 to 1.41 times the peak RSS." in said(group(exponent(), memory))
    )


def test_memory_elsewhere_is_not_put_beside_the_time():
    elsewhere = exponent("peak_rss_bytes", start=64, end=128)
    (line,) = (one for one in said(group(exponent(), elsewhere)) if "Doubling" in one)
    assert "RSS" not in line


def test_the_step_up_the_axis_is_the_last_in_the_largest_cells():
    low = exponent(start=64, end=128, fixed={"per_device_train_batch_size": 16})
    small = exponent(fixed={"per_device_train_batch_size": 4})
    (line,) = (one for one in said(group(low, exponent(), small)) if "the length" in one)
    assert "from 128 to 256 (batch 8)" in line


def test_an_axis_that_was_not_doubled():
    line = "From training examples 1000 to 3000, a doubling costs 1.9 to 2.1 times the total time."
    assert line in said(group(exponent("total_s", "train_size", 1000, 3000, fixed={})))


def test_groups_are_told_apart_by_what_differs():
    groups = [
        group(
            exponent(high=high, low=high), fixed={"attn_implementation": name, "padding": "longest"}
        )
        for name, high in (("eager", 1.77), ("sdpa", 1.0))
    ]
    lines = [line for line in said(*groups) if "doubling the length" in line]
    assert lines[0].startswith("With attention eager: doubling the length from 128 to 256")
    assert "costs 3.41 times" in lines[0]
    assert "With attention sdpa" in lines[1]
    assert "costs 2.00 times" in lines[1]


def test_an_axis_without_a_fit_says_what_was_measured():
    (line,) = (one for one in said(group(exponent())) if one.startswith("Batch"))
    assert line.startswith(
        "Batch 4 to 8 (at length 64, training examples 100): a step from 117 ms to 185 ms"
    )


def test_accuracy_and_what_more_examples_would_bring():
    (line,) = (one for one in said(curves=(learning_curve(),)) if one.startswith("Accuracy"))
    assert line == (
        "Accuracy rises from 0.541 (0.531 to 0.551) at 100 training examples to 0.687 (0.677 to 0.697) at 400,"
        " means over 3 seeds. By the fitted law, 800 training examples would give 0.737 (0.727 to 0.747), and"
        " the limit is 0.920 (0.890 to 0.950)."
    )


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((3, 3), ", means over 3 seeds."),
        ((2, 3), ", means over 2 to 3 seeds."),
        ((1, 3), ", over 1 to 3 seeds."),
        ((3, 1), ", over 1 to 3 seeds."),
        ((1, 1), ", over 1 seed."),
    ],
)
def test_seeds_are_those_of_all_points_and_one_run_is_no_mean(seeds, words):
    points = {
        size: (Interval(a, a - 0.01, a + 0.01), count)
        for size, a, count in zip((100, 400), (0.6, 0.7), seeds, strict=True)
    }
    assert f" at 400{words}" in said(curves=(learning_curve(points=points),))[1]


def test_how_far_other_evaluation_examples_would_move_the_curve():
    line = said(curves=(learning_curve(evaluation_error=0.0612),))[1]
    moved = "Other evaluation examples would move the whole curve by up to ±0.061."
    assert f"means over 3 seeds. {moved} By the fitted law" in line
    assert "evaluation examples" not in said(curves=(learning_curve(),))[1]


def test_of_several_curves_the_best_known_is_told():
    weak = learning_curve(weak=(NoneHeldOut(),), fixed={"max_length": 64})
    line = said(curves=(weak, learning_curve(fixed={"max_length": 128})))[1]
    assert "(length 128)" in line
    assert line.endswith("1 more curve is below.")


def test_a_weak_law_foretells_nothing():
    line = said(curves=(learning_curve(weak=(NoneHeldOut(),)),))[1]
    assert line.endswith("The law fitted to it is weak: too few cells to hold any out.")
    assert "would give" not in line


def test_accuracy_that_is_not_told_apart_does_not_rise():
    flat = {size: (Interval(0.7, 0.6, 0.8), 3) for size in (100, 400)}
    assert said(curves=(learning_curve(points=flat),))[1].startswith("Accuracy goes from")


def learned(*accuracies, seeds=(42,)):
    """Records of 100, 200, ... training examples, evaluated on the same examples, with several seeds."""
    return [
        record(
            cell(train_size=100 * 2**i, seed=seed),
            measurement=measurement(
                scores=(score(value=accuracy + 0.01 * (seed - 42), examples=200),)
            ),
        )
        for i, accuracy in enumerate(accuracies)
        for seed in seeds
    ]


def learning_line(records):
    refused = Refusal("eval_accuracy", TooFewSeeds(0, 3))
    lines = said(curves=(refused,), records=records)
    assert not [line for line in lines if "No learning curve" in line]
    return next((line for line in lines if line.startswith("Accuracy")), None)


def test_without_a_curve_the_scores_at_both_ends_are_said():
    line = learning_line(learned(0.5, 0.6, 0.95))
    assert line.startswith(
        "Accuracy rises from 0.500 at 100 training examples to 0.950 at 400 (length 16, batch 4):"
        " a difference of +0.450 (+0.373 to +0.527)"
    )
    assert line.endswith("; each is of one seed.")
    assert learning_line(learned(0.95, 0.4)).startswith("Accuracy falls from 0.950")


def test_ends_within_noise_do_not_rise():
    line = learning_line(learned(0.50, 0.55))
    assert line.startswith("Accuracy goes from 0.500 at 100")
    assert "(-0." in line
    assert "not distinguishable from none" in line


def test_ends_of_several_seeds_are_means():
    line = learning_line(learned(0.5, 0.9, seeds=(42, 43, 44)))
    assert "0.510 at 100 training examples to 0.910 at 200" in line
    assert "one seed" not in line


def test_one_size_teaches_nothing():
    assert learning_line(learned(0.9)) is None


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0.926, 1.07), "1.9 to 2.1 times"),
        ((1.0, 1.0), "2.00 times"),
        ((-0.1, 0.1), "0.9 to 1.1 times"),
        ((-1.7, 1.3), "0.3 to 2.5 times"),
        ((-1.8, 5.2), "not known"),
    ],
)
def test_times(ends, words):
    assert times(Interval(0.0, *ends)) == words


def test_a_factor_of_which_nothing_is_known_is_no_finding():
    step, memory = exponent(low=-1.8, high=5.2), exponent(cost="peak_rss_bytes")
    only_memory = [line for line in said(group(step, memory)) if "doubling" in line.lower()]
    assert [("step time" in line, "peak RSS" in line) for line in only_memory] == [(False, True)]
    wide = exponent(cost="peak_rss_bytes", low=0.0, high=3.1)
    assert not [line for line in said(group(step, wide)) if "doubling" in line.lower()]


def test_stats():
    records = [record(), record(cell(train_size=8), measurement=measurement(eval_accuracy=0.9))]
    table, axes = cells_table(records), varying_axes(records)
    found = {what: (value, note) for what, value, note in stats(table, axes)}
    assert found["runs finished"] == ("2 of 2", "of 2 cells")
    assert found["step time"][0] == "500 ms"
    assert found["best accuracy"] == (
        "0.900",
        "one seed, length 16, batch 4, training examples 8; guessing gives 0.100",
    )


def test_the_best_cell_is_named_by_all_that_tells_cells_apart():
    records = [
        record(cell(method=method), measurement=measurement(eval_accuracy=accuracy))
        for method, accuracy in (("full", 0.8), ("lora", 0.9))
    ]
    (found,) = (
        one for one in stats(cells_table(records), varying_axes(records)) if "best" in one[0]
    )
    assert "training examples 16, method lora;" in found[2]


def test_runs_with_wrong_figures_have_finished_too():
    wrong = record(untrusted={"total_s": "the clock jumped"})
    records = [record(replicate=1), wrong, record(replicate=2, status="oom", measurement=None)]
    lines = said(records=records)
    assert lines[0] == "2 of 3 runs finished."
    assert lines[1].startswith("1 of them with figures that cannot be right")
    assert stats(cells_table(records), varying_axes(records))[0][1:] == ("2 of 3", "of 1 cell")


def test_words_have_no_first_and_last():
    records = [record(cell(method=method)) for method in ("full", "lora")]
    assert not any("method" in line.lower() for line in said(records=records))


def guessed(*accuracies, guess=0.5, examples=100):
    """Return runs of one cell per accuracy, where guessing gives a half."""
    return [
        record(
            cell(train_size=16 * 2**n),
            measurement=measurement(scores=(score(value=a, examples=examples, guess=guess),)),
        )
        for n, a in enumerate(accuracies)
    ]


def test_scores_that_are_guesses_are_said_first():
    lines = said(records=guessed(0.48, 0.55, 0.52))
    assert "no cell's accuracy is distinguishable from guessing (0.550 at best" in lines[0]
    lines = said(records=guessed(0.48, 0.9, 0.52))
    assert lines[0].startswith("In 2 of 3 cells the accuracy is not distinguishable from guessing")
    assert "guessing" not in " ".join(said(records=guessed(0.8, 0.9)))


def test_the_best_is_the_best_mean_and_not_the_luckiest_seed():
    lucky = [
        record(cell(), replicate=n, measurement=measurement(eval_accuracy=a))
        for n, a in enumerate((0.95, 0.60, 0.61))
    ]
    steady = [
        record(cell(train_size=32), replicate=n, measurement=measurement(eval_accuracy=a))
        for n, a in enumerate((0.80, 0.81, 0.82))
    ]
    table = cells_table([*lucky, *steady])
    (best,) = (one for one in stats(table, varying_axes([*lucky, *steady])) if "best" in one[0])
    assert best[1] == "0.810"
    assert best[2].startswith("mean over 3 seeds, length 16, batch 4, training examples 32")
