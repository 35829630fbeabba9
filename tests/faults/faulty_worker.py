"""A worker that is a real cell until the moment at which it is told to break.

`FTBENCH_FAULTS` names a JSON file that maps `LENGTH-DOCUMENTS` of a cell to a fault; each is
injected at the third optimizer step, in the middle of the real training.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

STEP = 3


def main(body, emit):
    import ftbench.worker.cell as cell

    plan = json.loads(Path(os.environ["FTBENCH_FAULTS"]).read_text())
    fault = plan.get(f"{body['cell']['max_length']}-{body['cell']['train_size']}")
    if fault is None:
        return cell.main(body, emit)
    break_in_step(fault)
    return cell.main(body, emit)


def break_in_step(fault):
    """Have this process break at the third step of its training."""
    from ftbench.worker.recipe.metered_trainer import MeteredTrainer

    real = MeteredTrainer.training_step

    def training_step(self, *arguments, **more):
        if self.state.global_step == STEP - 1:
            FAULTS[fault](self)
        return real(self, *arguments, **more)

    MeteredTrainer.training_step = training_step


def sigkill(trainer):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(trainer):
    time.sleep(10**6)


def hang_in_native_code(trainer):
    ctypes.PyDLL(None).pause()  # the GIL is held: no Python code runs any more


def stopped(trainer):
    os.kill(os.getpid(), signal.SIGSTOP)


def segfault(trainer):
    ctypes.string_at(0)


def abort(trainer):
    ctypes.CDLL(None).abort()


def silent_exit(trainer):
    os._exit(0)


def exception(trainer):
    raise ValueError("planted")


def cuda_oom(trainer):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. (injected)")


def host_oom_by_rlimit(trainer):
    import torch

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
    torch.zeros(2**31)


def disk_full(trainer):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_a_line(trainer):
    os.write(channel(), b'{"kind": "answer", "body": {"status": "o')
    os._exit(0)


def nonsense(trainer):
    os.write(channel(), b'{"kind": "answer", "body": {"status": "ok", "measurement": {}}}\n')
    os._exit(0)


def channel():
    """Return the descriptor of the pipe to the parent."""
    frame = sys._getframe()
    while "channel" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["channel"].fileno()


FAULTS = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and name not in ("main", "channel", "Path", "break_in_step")
}
