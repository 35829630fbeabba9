"""The host meter against memory that was really taken."""

import mmap

import pytest

from ftbench.worker.measure.meters.host import HostMemory

PLANTED = 64 * 2**20


def touch(size):
    """Take memory page by page, and give it back."""
    with mmap.mmap(-1, size) as block:
        block.write(b"x" * size)


def test_a_planted_peak_is_seen_within_one_per_cent():
    meter = HostMemory()
    meter.start("train")
    before = meter.read()["peak_rss_bytes"]
    touch(PLANTED)
    grown = meter.read()["peak_rss_bytes"] - before
    # The source of the bytes (64 MiB) and the mapping are both resident at the peak.
    assert grown == pytest.approx(2 * PLANTED, rel=0.01)


def test_start_begins_a_new_peak():
    meter = HostMemory()
    meter.start("train")
    touch(PLANTED)
    high = meter.read()["peak_rss_bytes"]
    meter.start("train")
    assert meter.read()["peak_rss_bytes"] < high - PLANTED


def test_where_the_kernel_offers_no_reset_there_is_a_reason_and_no_figure(tmp_path):
    meter = HostMemory(proc=tmp_path / "none")
    meter.start("train")
    assert meter.read() == {}
    assert "cannot be reset" in meter.absent()["peak_rss_bytes"]


def test_a_status_without_a_peak(tmp_path):
    (tmp_path / "status").write_text("VmRSS: 5 kB\n")
    meter = HostMemory(proc=tmp_path)
    meter.start("train")
    assert meter.read() == {}
    assert "no VmHWM" in meter.absent()["peak_rss_bytes"]


def test_kilobytes_are_1024_bytes(tmp_path):
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t   2048 kB\nVmRSS: 1 kB\n")
    meter = HostMemory(proc=tmp_path)
    meter.start("train")
    assert meter.read() == {"peak_rss_bytes": 2048 * 1024}
    assert meter.absent() == {}
