"""A worker that does what the request says."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from ftbench.base.errors import WorkloadError
from ftbench.records.messages import Progress


def main(body, emit):
    do = body["do"]
    print("printed")
    os.system("echo from the shell")
    if do == "answer":
        for step in (1, 2, 3):
            emit(Progress(phase="train", step=step))
    elif do == "refuse":
        raise WorkloadError("no such column", where="workload.text_column")
    elif do == "raise":
        _ = 1 / 0
    elif do == "exit":
        os._exit(3)
    elif do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "segfault":
        ctypes.string_at(0)
    elif do.startswith("hang"):
        emit(Progress(phase="train", step=os.getpid()))
        if do == "hang":
            time.sleep(600)
        ctypes.CDLL(None).pause()
    elif do == "fork":
        child = os.fork()
        if child == 0:
            time.sleep(600)
        emit(Progress(phase="train", step=child))
    elif do == "fork twice":
        if os.fork() == 0:
            if os.fork() == 0:
                emit(Progress(phase="train", step=os.getpid()))
                signal.pause()
            signal.pause()
        signal.pause()
    elif do == "nonsense":
        os.write(find_channel(), body["line"].encode())
        os._exit(0)
    elif do == "stop in the middle of a line":
        emit(Progress(phase="train", step=os.getpid()))
        os.write(find_channel(), b'{"kind": "answ')
        os.kill(os.getpid(), signal.SIGSTOP)
    elif do == "meet":
        folder = Path(body["folder"])
        (folder / f"{body['me']}.here").touch()
        while not (folder / f"{body['you']}.here").exists():
            time.sleep(0.01)
        return {"met": body["you"]}
    elif do == "big":
        return {"text": "x" * body["size"]}
    elif do == "tell":
        print(os.environ["FTBENCH_TOKEN"])
    elif do == "eat":
        time.sleep(body.get("sleep", 0))
        return {"bytes": len(bytearray(body["size"]))}
    return {
        "asked": body,
        "pid": os.getpid(),
        "session": os.getsid(0),
        "environment": os.environ["FTBENCH_TEST"],
        "collected": len(gc.get_objects()),
        "frozen": gc.get_freeze_count(),
        "starts processes by": multiprocessing.get_start_method(),
    }


def find_channel():
    """Return the descriptor of the pipe to the parent."""
    frame = sys._getframe()
    while frame is not None:
        if "channel" in frame.f_locals:
            return frame.f_locals["channel"].fileno()
        frame = frame.f_back
    raise AssertionError("no channel")
