"""A trace as lists that JSON can hold, to be compared with another process's."""

from __future__ import annotations

import json
from typing import Any

from ftbench.prediction.trace.events import Trace


def plain(trace: Trace) -> dict[str, Any]:
    """Return every event (kind, block, bytes, phase, step, module, operator), kernel and role."""
    lists = {
        "events": [
            [kind, block, nbytes, *trace.sites[site]]
            for (kind, block, site), nbytes in zip(trace.rows(), trace.nbytes.tolist(), strict=True)
        ],
        "kernels": [[k.operator, k.sizes, k.traits, k.autograd] for k in trace.kernels],
        "roles": dict(sorted(trace.traced_roles.items())),
    }
    return json.loads(json.dumps(lists))
