"""Process: where a worker that predicts begins and ends, with Python's cyclic collector off.

It lives for seconds. Collections are a seventh of the time that importing torch and transformers takes,
and more than a second at the end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from bench.messages import Progress


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return what `bench.predict.main` answers to a request."""
    gc.disable()
    from bench.predict import main as predicting  # torch, transformers and the rest

    answer = predicting.main(body, emit)
    gc.freeze()  # the last collections of the interpreter have nothing to look at
    return answer
