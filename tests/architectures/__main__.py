"""Predict transformers' architectures in their tasks: `python -m tests.architectures [TYPE ...] [--task TASK ...]`.

Each is judged in a process of its own. Prints one line per type and task, and a table that docs/prediction.md has.
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
    options = _options(arguments)
    torch.set_num_threads(1)  # a forked process could not use the threads of this one
    judgements = []
    for task in options.task:
        for model_type in TYPES[task]:
            if not options.types or model_type in options.types:
                judgements.append(_apart(model_type, task, tracebacks=options.tracebacks))
                print(judgements[-1].line(), flush=True)
    print("\n| task | types | agrees | traces | refused | error |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for task in options.task:
        print(_row(task, [one for one in judgements if one.task == task]))
    print(_row("all", judgements))
    agree = _counted(judgements, AGREES)
    return int(_counted(judgements, ERROR) > 0 or agree < AGREE_AT_LEAST * len(judgements))


def _options(arguments):
    parser = argparse.ArgumentParser("nox -s architectures --", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="model types; all without any")
    parser.add_argument("--task", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--tracebacks", action="store_true", help="print those of errors")
    options = parser.parse_args(arguments)
    known = {name for task in options.task for name in TYPES[task]}
    if unknown := sorted(set(options.types) - known):
        parser.error(f"no model types of {', '.join(options.task)}: {', '.join(unknown)}")
    return options


def _counted(judgements, outcome):
    return sum(one.outcome == outcome for one in judgements)


def _row(task, judgements):
    """Return the row of a task in the table."""
    total = len(judgements)
    counts = (_counted(judgements, outcome) for outcome in OUTCOMES)
    shares = (f"{count} ({count / max(total, 1):.0%})" for count in counts)
    return f"| {task} | {total} | {' | '.join(shares)} |"


def _apart(model_type, task, *, tracebacks):
    """Return the judgement of a type, made in a process of its own that cannot end this one."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(model_type, task, sender, tracebacks))
    process.start()
    sender.close()
    try:
        if receiver.poll(TIME_LIMIT_S):
            return receiver.recv()
        return Judgement(task, model_type, ERROR, f"no answer after {TIME_LIMIT_S} s")
    except EOFError:
        process.join()
        return Judgement(task, model_type, ERROR, f"the process ended: {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _child(model_type, task, sender, tracebacks):
    if not tracebacks:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
    sender.send(judge(model_type, task))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
