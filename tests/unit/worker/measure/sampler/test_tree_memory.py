import subprocess
import sys

import pytest

from ftbench.worker.measure.sampler.tree_memory import TreeMemory

PLANTED = 64 * 2**20


class TestTree:
    CHILD = """
import mmap, sys
print("up", flush=True); sys.stdin.readline()
block = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(block), 4096):
    block[page] = 1
print("took", flush=True); sys.stdin.readline()
"""
    SHARING = """
import mmap, os, sys
block = mmap.mmap(-1, int(sys.argv[1]))
go, done = os.pipe(), os.pipe()
def touch():
    for page in range(0, len(block), 4096):
        block[page] = 1
if not os.fork():
    os.close(go[1]); os.read(go[0], 1); touch(); os.write(done[1], b"."); os.read(go[0], 1); os._exit(0)
print("up", flush=True); sys.stdin.readline()
touch(); os.write(go[1], b"."); os.read(done[0], 1)
print("took", flush=True); sys.stdin.readline()
"""

    # This process won't do: it gives memory back when it likes.
    PARENT = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]])"
    )

    def rise(self, code, *more):
        """Return how far PSS rises as the program, or a child of it, takes 64 MiB, which it says."""
        command = [sys.executable, "-c", code, str(PLANTED), *more]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        with subprocess.Popen(command, **pipes) as program:
            tree = TreeMemory(program.pid, leave_out=-1)
            assert program.stdout.readline() == "up\n"
            before = tree.read().figures["peak_pss_bytes"]
            program.stdin.write("go\n")
            assert program.stdout.readline() == "took\n"
            return tree.read().figures["peak_pss_bytes"] - before

    def test_what_a_child_takes_is_counted(self):
        assert self.rise(self.PARENT, self.CHILD) == pytest.approx(PLANTED, rel=0.01)

    def test_what_two_share_is_counted_once(self):
        assert self.rise(self.SHARING) == pytest.approx(PLANTED, rel=0.01)

    @pytest.fixture
    def proc(self, tmp_path):
        """A worker (1) with children 2 and 3 of two threads, and 4 below 3; 100 to 400 KiB."""
        family = {1: {1: "2", 11: "3 9"}, 2: {2: ""}, 3: {3: "4"}, 4: {4: ""}}
        for pid, tasks in family.items():
            for task, children in tasks.items():
                folder = tmp_path / str(pid) / "task" / str(task)
                folder.mkdir(parents=True)
                (folder / "children").write_text(children)
            text = f"0-1 ---p [rollup]\nRss: 999 kB\nPss: {pid}00 kB\nPss_Dirty: 7 kB\n"
            (tmp_path / str(pid) / "smaps_rollup").write_text(text)
            parent = {1: 0, 2: 1, 3: 1, 4: 3}[pid]
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) (c) S {parent} 0 0\n")
        return tmp_path

    def kib(self, proc, leave_out=-1):
        reading = TreeMemory(1, leave_out, proc).read()
        return reading.figures.get("peak_pss_bytes", 0) / 1024, reading.absent

    def test_the_whole_tree_and_not_one_that_has_ended(self, proc):
        assert self.kib(proc) == (1000, {})  # 9 is listed and gone

    def test_the_sampler_is_left_out(self, proc):
        assert self.kib(proc, leave_out=2) == (800, {})

    def test_a_kernel_that_lists_no_children(self, proc):
        for file in proc.glob("*/task/*/children"):
            file.unlink()
        assert self.kib(proc) == (1000, {})

    def test_a_part_that_cannot_be_read_leaves_no_figure(self, proc):
        file = proc / "4" / "smaps_rollup"
        file.unlink()
        file.mkdir()
        figure, absent = self.kib(proc)
        assert figure == 0
        assert "Is a directory" in absent["peak_pss_bytes"]

    def test_a_text_without_the_figure(self, proc):
        (proc / "4" / "smaps_rollup").write_text("Rss: 4 kB\n")
        assert "has no Pss" in self.kib(proc)[1]["peak_pss_bytes"]

    def test_a_kernel_without_the_file(self, proc):
        (proc / "1" / "smaps_rollup").unlink()
        assert "no smaps_rollup" in self.kib(proc)[1]["peak_pss_bytes"]
