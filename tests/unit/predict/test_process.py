import gc
import subprocess
import sys

from bench.messages import Progress
from bench.predict import main as predicting
from bench.predict import process


def test_the_collector_is_off_while_it_works(monkeypatch):
    seen = []

    def answer(body, emit):
        seen.append((body, gc.isenabled()))
        emit(Progress(phase="at it"))
        return {"cells": []}

    monkeypatch.setattr(predicting, "main", answer)
    told = []
    try:
        assert process.main({"a": 1}, told.append) == {"cells": []}
    finally:
        gc.enable()
        gc.unfreeze()
    assert seen == [({"a": 1}, False)]
    assert [progress.phase for progress in told] == ["at it"]


def test_nothing_heavy_is_imported_before_the_collector_is_off():
    code = "import bench.predict.process, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
