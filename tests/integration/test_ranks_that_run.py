"""Two processes that really train together, with gloo: against one process, against the prediction, in a report.

Without dropout, whose masks differ between the ranks and one process.
"""

import pandas as pd
import pytest

from ftbench.base.units import KIB
from tests.integration.conftest import SMALL, run

pytestmark = pytest.mark.integration

PROFILE = """
[workload]
model = "offline:minilm-l6"
dataset = "offline:imdb"
eval_size = 16

[[grid]]
max_length = [32]
per_device_train_batch_size = [8]
train_size = [64]
num_processes = [1, 2]

[[grid]]
max_length = [32]
per_device_train_batch_size = [4]
train_size = [64]
num_processes = [2]

[[grid]]
max_length = [32]
per_device_train_batch_size = [2]
train_size = [32]
num_processes = [2]
strategy = ["zero1"]

[training]
save_only_model = true
num_train_epochs = 2
learning_rate = 1e-2

[run]
timeout_s = 300
"""
NO_DROPOUT = {
    "workload.config.hidden_dropout_prob": "0.0",
    "workload.config.attention_probs_dropout_prob": "0.0",
}
# Sums in another order: a few last bits of float32, through 16 steps.
ORDER = 1e-5
LIMIT = 1 * KIB


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "two.toml").write_text(PROFILE)
    settings = {name.replace(".", "__"): value for name, value in (SMALL | NO_DROPOUT).items()}
    found = run(folder / "two.toml", folder / "run", "--skip-unfit", **settings)
    assert found.process.returncode == 0, found.process.stderr + found.process.stdout
    return found


@pytest.fixture(scope="module")
def records(done):
    """The records by processes and batch."""
    return {
        (record.cell.num_processes, record.cell.per_device_train_batch_size): record
        for record in done.records
    }


def test_the_same_whole_batch_gives_the_same_losses(done, records):
    alone, shared = records[1, 8], records[2, 4]
    steps, of_two = done.steps(alone), done.steps(shared)
    assert list(of_two["samples"]) == list(steps["samples"]) == [8] * 16
    assert list(of_two["real_tokens"]) == list(steps["real_tokens"])
    assert list(of_two["loss"]) == pytest.approx(list(steps["loss"]), rel=ORDER)
    assert shared.measurement.train_loss == pytest.approx(alone.measurement.train_loss, rel=ORDER)
    assert shared.measurement.eval_loss == pytest.approx(alone.measurement.eval_loss, rel=ORDER)
    for one, two in zip(alone.measurement.epochs, shared.measurement.epochs, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=ORDER)
        assert two.eval_loss == pytest.approx(one.eval_loss, rel=ORDER)


def test_the_ranks_together_read_what_one_process_reads(done, records):
    folder = done.directory.path / "steps"
    name = records[2, 4].file_name
    ranks = [pd.read_parquet(folder / f"{name}-rank{rank}.parquet") for rank in range(2)]
    assert all(list(table["samples"]) == [4] * 16 for table in ranks)
    both = done.steps(records[2, 4])
    assert list(sum(table["real_tokens"] for table in ranks)) == list(both["real_tokens"])
    slowest = pd.concat([table["step_s"] for table in ranks], axis=1).max(axis=1)
    assert list(both["step_s"]) == list(slowest)


def test_each_rank_has_its_own_memory_steps_and_waiting(records):
    for key in ((2, 8), (2, 4), (2, 2)):
        record = records[key]
        assert record.untrusted == {}
        assert len(record.measurement.ranks) == 2
        for rank in record.measurement.ranks:
            assert rank.memory.peak_rss_bytes > rank.memory.peak_cpu_tensors_bytes > 0
            assert rank.memory.peak_pss_bytes > 0
            assert rank.steps.count > 0
            assert 0 <= rank.collectives.exposed_s <= rank.collectives.seconds
            assert rank.device.threads >= 1


def test_the_predicted_peak_of_every_rank_is_within_a_kibibyte_of_the_measured_one(records):
    for key in ((2, 8), (2, 4)):
        record = records[key]
        predicted = record.predicted.rank_tensors_bytes
        measured = [rank.memory.peak_cpu_tensors_bytes for rank in record.measurement.ranks]
        assert len(predicted) == len(measured) == 2
        for one, other in zip(predicted, measured, strict=True):
            assert abs(one - other) <= LIMIT, (predicted, measured)


def test_the_report_has_weak_and_strong_scaling_and_a_row_per_rank(done):
    report = (done.directory.path / "report.md").read_text()
    assert "### Weak scaling with ddp, length 32, 8 examples per step of each process" in report
    assert "### Strong scaling with ddp, length 32, 8 examples per step of all processes" in report
    assert "Several processes" in done.process.stdout
    assert len(pd.read_csv(done.directory.path / "ranks.csv")) == 6


def test_a_second_run_has_nothing_left_to_do(done, tmp_path):
    settings = {name.replace(".", "__"): value for name, value in (SMALL | NO_DROPOUT).items()}
    profile = done.directory.path.parent / "two.toml"
    before = done.records
    again = run(profile, done.directory.path, "--skip-unfit", **settings)
    assert again.process.returncode == 0, again.process.stderr
    assert "4 of 4 runs are done already" in again.process.stdout
    assert again.records == before
