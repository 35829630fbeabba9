"""Predict every architecture of transformers' sequence classifiers: `python -m tests.architectures [TYPE ...]`.

Each is judged in a process of its own. Prints one line per type, and a table that docs/prediction.md has.
"""

import argparse
import multiprocessing
import os
import sys

import torch

from tests.architectures.configs import TYPES
from tests.architectures.judge import AGREES, ERROR, OUTCOMES, Judgement, judge

AGREE_AT_LEAST = 0.9
TIME_LIMIT_S = 300


def main(arguments):
    """Print the judgements and return the exit code: 1 if too few agree, or any ends in a traceback."""
    parser = argparse.ArgumentParser("nox -s architectures --", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="model types; all without any")
    parser.add_argument("--tracebacks", action="store_true", help="print those of errors")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.types) - set(TYPES)):
        parser.error(f"no sequence classifiers: {', '.join(unknown)}")
    types = options.types or TYPES
    torch.set_num_threads(1)  # a forked process could not use the threads of this one
    judgements = []
    for model_type in types:
        judgements.append(_apart(model_type, tracebacks=options.tracebacks))
        print(judgements[-1].line(), flush=True)
    counts = {name: sum(j.outcome == name for j in judgements) for name in OUTCOMES}
    print("\n| types | agrees | traces | refused | error |\n| ---: | ---: | ---: | ---: | ---: |")
    shares = (f"{count} ({count / len(types):.0%})" for count in counts.values())
    print(f"| {len(types)} | {' | '.join(shares)} |")
    return int(counts[ERROR] > 0 or counts[AGREES] < AGREE_AT_LEAST * len(types))


def _apart(model_type, *, tracebacks):
    """Return the judgement of a type, made in a process of its own that cannot end this one."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(model_type, sender, tracebacks))
    process.start()
    sender.close()
    try:
        if receiver.poll(TIME_LIMIT_S):
            return receiver.recv()
        return Judgement(model_type, ERROR, f"no answer after {TIME_LIMIT_S} s")
    except EOFError:
        process.join()
        return Judgement(model_type, ERROR, f"the process ended: {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _child(model_type, sender, tracebacks):
    if not tracebacks:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
    sender.send(judge(model_type))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
