"""The log of files that are read, in a process of its own: a hook cannot be removed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbench.base.importable import importable_names

BEGIN = """
import json, os, sys
from ftbench.worker.process.file_log import FileLog
log = FileLog()
"""
END = "\nprint(log.read().model_dump_json())"


@pytest.fixture
def read_by(tmp_path):
    def run(body):
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + body + END],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4] / "bench")},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def own(found, folder):
    return {
        name.removeprefix(f"{folder}/"): stamp
        for name, stamp in found["files"].items()
        if name.startswith(str(folder))
    }


def test_what_is_opened_is_noted_with_its_stamp(read_by, tmp_path):
    (tmp_path / "a.txt").write_text("twelve bytes")
    found = own(read_by("open('a.txt').close(); os.close(os.open('a.txt', os.O_RDONLY))"), tmp_path)
    status = (tmp_path / "a.txt").stat()
    assert found == {"a.txt": [12, status.st_mtime_ns, status.st_ctime_ns]}


def test_a_module_is_noted_as_its_source_also_if_bytecode_is_read(read_by, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "layers.py").write_text("width = 3")
    import_it = f"sys.dont_write_bytecode = False; sys.path.insert(0, {str(code)!r}); import layers"
    assert "layers.py" in own(read_by(import_it), code)
    assert list((code / "__pycache__").glob("layers.*.pyc"))
    found = read_by(import_it)
    assert list(own(found, code)) == ["layers.py"]
    assert found["folders"] == {str(code): importable_names(str(code))}
    assert found["beyond"] == []


def test_what_a_forked_process_reads_is_noted(read_by, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    body = """
if (child := os.fork()) == 0:
    open('a.txt').close()
    os._exit(0)
os.waitpid(child, 0)
"""
    assert list(own(read_by(body), tmp_path)) == ["a.txt"]


def test_what_is_written_is_no_input(read_by, tmp_path):
    body = """
open('new.txt', 'w').close(); open('new.txt').close()
try:
    open('cache.txt').close()
except FileNotFoundError:
    open('cache.txt', 'w').close()
"""
    assert own(read_by(body), tmp_path) == {}


def test_what_was_looked_for_in_vain_is_noted(read_by, tmp_path):
    body = """
try:
    open('config.json')
except FileNotFoundError:
    pass
"""
    assert own(read_by(body), tmp_path) == {"config.json": None}


def test_a_name_that_is_no_text_is_noted_as_one_that_changed(read_by, tmp_path):
    (tmp_path / os.fsdecode(b"a\xff")).write_text("a")
    ((name, stamp),) = own(read_by("open(b'a\\xff').close()"), tmp_path).items()
    assert stamp is not None
    assert not (tmp_path / name).exists()


def test_of_a_file_that_is_read_twice_the_first_stamp_counts(read_by, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    body = """
open('a.txt').close()
with open('a.txt', 'a') as file: file.write('more')
open('a.txt').close()
"""
    assert own(read_by(body), tmp_path)["a.txt"][0] == 1


@pytest.mark.parametrize(
    ("body", "event"),
    [
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("os.system('true')", "os.system"),
        ("os.listdir('/')", "a list of /"),
        ("import pathlib; list(pathlib.Path('.').iterdir())", "a list of"),
        (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect_ex('nobody')",
            "socket.connect",
        ),
    ],
)
def test_what_reaches_further_is_noted(read_by, body, event):
    assert any(found.startswith(event) for found in read_by(body)["beyond"])


def test_shared_libraries_are_noted(read_by):
    files = read_by("import numpy")["files"]
    assert any("multiarray" in name and ".so" in name for name in files)


@pytest.fixture
def read_by_a_module(read_by, tmp_path):
    """What a module of the user's own reads when it is imported."""

    def run(body):
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "mine.py").write_text(f"import os, pathlib\n{body}\n")
        return read_by(f"sys.path.insert(0, {str(code)!r}); import mine")

    return run


@pytest.mark.parametrize(
    "asks",
    [
        "os.path.exists('a.txt')",
        "os.path.getsize('a.txt')",
        "pathlib.Path('a.txt').is_file()",
        "os.stat('a.txt')",
        "open('/proc/meminfo').read()",
        "import multiprocessing.util as u; u.spawnv_passfds(b'/bin/true', [b'true'], [])",
    ],
)
def test_what_own_code_asks_beyond_its_files_is_noted(read_by_a_module, tmp_path, asks):
    (tmp_path / "a.txt").write_text("text")
    assert read_by_a_module(asks)["beyond"]
    assert not read_by_a_module("width = 3")["beyond"]


def test_what_libraries_ask_is_not(read_by):
    body = (
        "import logging.config, tempfile; tempfile.gettempdir(); open('/proc/self/status').close()"
    )
    assert not read_by(body)["beyond"]


def test_a_file_that_is_opened_for_both_is_read(read_by, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1234")
    found = own(read_by("open('a.bin', 'r+b').close(); open('made.txt', 'w+').close()"), tmp_path)
    assert list(found) == ["a.bin"]


def test_files_of_all_threads_are_noted(read_by, tmp_path):
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text("x")
    body = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "names = [f'{n}.txt' for n in range(200)]\n"
        "with Pool(8) as pool: list(pool.map(lambda name: open(name).close(), names))"
    )
    assert len(own(read_by(body), tmp_path)) == 200
