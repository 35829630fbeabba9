from ftbench.records.predicted_peaks import PredictedPeaks
from ftbench.report.sections.parallel import parallel_section
from tests.factories import record
from tests.unit.analysis.comparisons.test_parallel import run_of


def texts(section):
    return "\n".join(section.texts)


def test_a_single_process_has_no_such_section():
    section = parallel_section([record()])
    assert (section.paragraphs, section.tables) == ((), ())


def test_both_scalings_and_every_rank_are_told():
    section = parallel_section([run_of(1, 8, 1.0), run_of(2, 8, 1.25), run_of(2, 4, 0.625)])
    weak, strong, ranks = section.tables
    assert [row[-1] for row in weak.rows] == ["100%", "80%"]
    assert [row[-1] for row in strong.rows] == ["100%", "80%"]
    assert [row[2] for row in ranks.rows] == ["0", "1", "0", "1"]
    said = texts(section)
    assert "2 processes have a parallel efficiency of 80%." in said
    assert "per thread" in said


def test_the_interval_over_seeds_stands_beside_the_efficiency():
    records = [run_of(n, 8, n * (1 + seed / 10), seed=seed) for n in (1, 2) for seed in (0, 1)]
    weak = parallel_section(records).tables[0]
    assert weak.rows[1][-1] == "50% (50% to 50%)"


def test_predicted_tensors_are_compared_to_the_byte():
    two = run_of(2, 8, 1.0)
    ranks = tuple(
        rank.model_copy(
            update={
                "memory": rank.memory.model_copy(update={"peak_cpu_tensors_bytes": 100 + rank.rank})
            }
        )
        for rank in two.measurement.ranks
    )
    measured = two.measurement.model_copy(update={"ranks": ranks})
    peaks = PredictedPeaks(tensors_bytes=108, rank_tensors_bytes=(108, 108))
    section = parallel_section(
        [two.model_copy(update={"measurement": measured, "predicted": peaks})]
    )
    assert "at most 8 bytes" in texts(section)
    assert "predicted tensors" in section.tables[-1].columns
