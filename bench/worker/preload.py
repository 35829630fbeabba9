"""Imported once by the fork server, so that a worker forked from it starts in a tenth of a second.

Imports only: a process that has started threads or touched CUDA must not be forked.
"""

import bench.worker.cell
import bench.worker.prepare
import bench.worker.trial  # noqa: F401
