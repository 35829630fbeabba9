"""Plant regressions and harmless changes, and say what the gate made of them: `python -m tests.mutations`.

Every planted regression must be caught, and its first changed part be of the right module and operator; no
harmless change may alarm, by one baseline, in any of several processes with other hash seeds, other numbers of
threads and a busy machine beside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ftbench.gating.baseline_file import read_baseline, write_baseline
from ftbench.gating.compare import compare
from tests.mutations import timing
from tests.mutations.changes import HARMLESS, PLANTED
from tests.mutations.sharded_changes import SHARDED_PLANTED
from tests.mutations.trial import found, judged

# Of each process that harmless changes are run in: threads, and whether others keep the machine busy.
CONDITIONS = ((1, False), (2, False), (4, False), (2, True), (1, True))
NAMED_AT_LEAST = 0.9
ALL_PLANTED = PLANTED + SHARDED_PLANTED


def main(arguments):
    """Print the tables and return the exit code: 1 where a bar is missed."""
    parser = argparse.ArgumentParser("nox -s mutations --", description=__doc__)
    parser.add_argument("--harmless-by", metavar="BASELINE", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--conditions", type=int, default=len(CONDITIONS))
    parser.add_argument(
        "--planted", type=int, default=len(ALL_PLANTED), help="so many of the planted regressions"
    )
    options = parser.parse_args(arguments)
    if options.harmless_by:
        before = read_baseline(options.harmless_by)
        print(json.dumps([compare(before, found(one.edits)).exit_code for one in HARMLESS]))
        return 0
    began = time.perf_counter()
    planted = evenly(ALL_PLANTED, options.planted)
    caught, named = _planted(planted)
    alarms, runs = _false_alarms(options.conditions)
    print(
        f"\ncaught {caught} of {len(planted)}; named rightly {named} of {caught}"
        f" ({named / max(caught, 1):.0%}); false alarms {alarms} of {runs} runs of {len(HARMLESS)}"
        f" harmless changes; {time.perf_counter() - began:.0f} s"
    )
    slow = timing.judged()
    print(slow)
    held = caught == len(planted) and named >= NAMED_AT_LEAST * caught and not alarms
    return 0 if held and slow.holds else 1


def evenly(items, count):
    """Return `count` of the items, evenly spread over their order, which is by kind."""
    return [items[place * len(items) // count] for place in range(min(count, len(items)))]


def _planted(regressions):
    """Print what became of each planted regression; return how many were caught, and named rightly."""
    from ftbench.report.commands.gate_attribution import changed_part_words

    caught = named = 0
    for planted in regressions:
        result = judged(planted.setup, planted.setup + planted.edits, planted.loop)
        changed_parts = [c for one in result.attributions for c in one.changed_parts]
        is_caught = result.exit_code == 1
        is_named = is_caught and bool(changed_parts) and planted.names(changed_parts[0])
        caught, named = caught + is_caught, named + is_named
        words = f"{'caught' if is_caught else 'MISSED'}  {'named' if is_named else 'OTHER'}"
        first = changed_part_words(changed_parts[0]) if changed_parts else "nothing"
        print(f"{words}  {planted.name}: {first}", flush=True)
    return caught, named


def _false_alarms(conditions):
    """Return (alarms, runs) of the harmless changes, each condition in a process of its own."""
    alarms = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        baseline = Path(folder) / "training.json"
        write_baseline(found(()), baseline)
        for seed, (threads, busy) in enumerate(CONDITIONS[:conditions]):
            codes = _harmless(baseline, seed, threads, busy)
            for code, change in zip(codes, HARMLESS, strict=True):
                if code:
                    print(f"ALARM  {change.name} ({threads} threads{', busy' if busy else ''})")
            alarms, runs = alarms + sum(map(bool, codes)), runs + len(codes)
    return alarms, runs


def _harmless(baseline, seed, threads, busy):
    """Return the gate's exit codes of all harmless changes, in a process under these conditions."""
    environment = os.environ | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads)}
    spin = [sys.executable, "-c", "while True: pass"]
    beside = [subprocess.Popen(spin) for _ in range(2 * busy)]
    try:
        command = [sys.executable, "-m", "tests.mutations", "--harmless-by", str(baseline)]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    finally:
        for process in beside:
            process.kill()
            process.wait()
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
