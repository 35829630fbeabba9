"""One rank of a cell of several processes: a real cell until the moment at which it is told to break.

`FTBENCH_FAULTS` names a JSON file that maps `LENGTH-EXAMPLES` of a cell to a rank and a fault. Every rank writes
its session, which is that of its launcher, into the file that the plan names as `sessions`.
"""

import json
import os
from pathlib import Path

from tests.faults.faulty_worker import break_in_step


def main(body, emit):
    import ftbench.worker.cell as cell

    plan = json.loads(Path(os.environ["FTBENCH_FAULTS"]).read_text())
    with Path(plan["sessions"]).open("a") as file:
        file.write(f"{os.getsid(0)}\n")
    rank, fault = plan.get(f"{body['cell']['max_length']}-{body['cell']['train_size']}", (None, ""))
    if rank == int(os.environ["RANK"]):
        break_in_step(fault)
    return cell.main(body, emit)
