"""The log of a run."""

import logging

import pytest

from ftbench.execute.jobs import Job
from ftbench.records.messages import Progress
from ftbench.records.record import Failure
from ftbench.verbs.run_log import RunLog
from tests.factories import cell, record


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="ftbench")
    return RunLog(("max_length", "per_device_train_batch_size", "train_size"))


def job(length):
    return Job(cell=cell(max_length=length), replicate=0, repeat=0)


def test_beginning_and_end_of_each_run(log, caplog):
    jobs = [job(64), job(128)]
    log.planned(jobs, [])
    log.preparing(Progress(phase="reading"))
    for one in jobs:
        log.started(one)
        log.progress(one, Progress(phase="train", step=1, max_steps=2))
        log.finished(one, record(one.cell, wall_s=2.0))
    texts = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.INFO]
    assert [text for text in texts if text.startswith("[")][1].startswith(
        "[2/2] length 128, batch 4, training examples 16: ok, 2.00 s"
    )
    assert len([text for text in texts if "starting" in text]) == 2
    assert not [entry for entry in caplog.records if entry.levelno > logging.INFO]


def test_what_went_wrong_is_a_warning(log, caplog):
    log.planned([job(64)], [])
    failed = record(
        job(64).cell, status="crashed", measurement=None, failure=Failure(message="it broke")
    )
    log.finished(job(64), failed)
    (warning,) = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "it broke" in warning.getMessage()
