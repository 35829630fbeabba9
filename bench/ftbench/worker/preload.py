"""Imported once by the fork server, so that a worker forked from it starts in a tenth of a second.

Imports only: a process that has started threads or touched CUDA must not be forked.
"""

import ftbench.worker.cell
import ftbench.worker.prepare.prepare
import ftbench.worker.two_step_pass  # noqa: F401
