from ftbench.analysis.fits.scaling import fit_scaling
from ftbench.report.sections.fits import fit_tables
from tests.unit.analysis.made_up import AXES, memory_bytes, table


def peaks():
    """Return runs whose peak RSS is known without noise: 300,000 bytes per token and 600 per token and length."""
    runs = table(noise=0)[AXES]
    length, batch = runs["max_length"], runs["per_device_train_batch_size"]
    return runs.assign(peak_rss_bytes=memory_bytes(length, batch))


def test_the_memory_of_one_more_example():
    found = {one.title: one for one in fit_tables(fit_scaling(peaks(), AXES))}
    slopes = found["Memory of one more example of a batch"]
    assert slopes.columns == ("memory", "of", "length", "per example", "per token")
    # 64 * (300,000 + 600 * 64) bytes, and a 64th of them.
    assert slopes.rows[0] == ("peak RSS", "all", "64", "20.7 MiB", "330 KiB")
    assert [row[2] for row in slopes.rows] == ["64", "128", "256", "512"]


def test_times_have_no_such_rows():
    runs = table(noise=0).drop(columns="peak_rss_bytes")
    titles = [one.title for one in fit_tables(fit_scaling(runs, AXES))]
    assert titles == ["The laws", "What a doubling costs"]
