"""Plant regressions and harmless changes, and say what the gate made of them: `python -m tests.mutations`.

Every planted regression must be caught, and its first culprit be of the right module and operator; no
harmless change may alarm, in any of several processes with other hash seeds, other numbers of threads and
a busy machine beside.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from tests.mutations import timing
from tests.mutations.changes import HARMLESS, PLANTED
from tests.mutations.trial import judged

# Of each process that harmless changes are run in: threads, and whether others keep the machine busy.
CONDITIONS = ((1, False), (2, False), (4, False), (2, True), (1, True))
NAMED_AT_LEAST = 0.9


def main(arguments):
    """Print the tables and return the exit code: 1 where a bar is missed."""
    parser = argparse.ArgumentParser("nox -s mutations --", description=__doc__)
    parser.add_argument("--harmless-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--conditions", type=int, default=len(CONDITIONS))
    options = parser.parse_args(arguments)
    if options.harmless_only:
        print(json.dumps([bool(judged((), one.edits).exit_code) for one in HARMLESS]))
        return 0
    began = time.perf_counter()
    caught = named = 0
    for planted in PLANTED:
        result = judged(planted.setup, planted.setup + planted.edits)
        culprits = [c for one in result.attributions for c in one.culprits]
        is_caught = result.exit_code == 1
        is_named = is_caught and bool(culprits) and planted.names(culprits[0])
        caught, named = caught + is_caught, named + is_named
        first = _words(culprits[0]) if culprits else "nothing"
        print(
            f"{'caught' if is_caught else 'MISSED'}  {'named' if is_named else 'OTHER'}"
            f"  {planted.name}: {first}"
        )
    alarms, runs = _false_alarms(options.conditions)
    print(
        f"\ncaught {caught} of {len(PLANTED)}; named rightly {named} of {caught}"
        f" ({named / max(caught, 1):.0%}); false alarms {alarms} of {runs} runs of {len(HARMLESS)}"
        f" harmless changes; {time.perf_counter() - began:.0f} s"
    )
    for line in timing.lines():
        print(line)
    missed = caught < len(PLANTED) or named < NAMED_AT_LEAST * caught or alarms
    return 1 if missed else 0


def _words(culprit):
    from bench.report.gate import culprit_words

    return culprit_words(culprit)


def _false_alarms(conditions):
    """Return (alarms, runs) of the harmless changes, each condition in a process of its own."""
    alarms = runs = 0
    for seed, (threads, busy) in enumerate(CONDITIONS[:conditions]):
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads)}
        beside = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * busy)
        ]
        try:
            command = [sys.executable, "-m", "tests.mutations", "--harmless-only"]
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
        finally:
            for process in beside:
                process.kill()
                process.wait()
        found = json.loads(done.stdout.splitlines()[-1])
        for alarm, change in zip(found, HARMLESS, strict=True):
            if alarm:
                print(f"ALARM  {change.name} ({threads} threads{', busy' if busy else ''})")
        alarms, runs = alarms + sum(found), runs + len(found)
    return alarms, runs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
