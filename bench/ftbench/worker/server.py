"""Imported first by the fork server: it ends with the process that started it, however that ends.

The server itself only notices that all its clients are gone, and the workers that it forks are
clients too: one that sits in native code would keep it, and so itself, alive after the parent.
"""

from ftbench.worker.process.lifeline import set_death_signal

set_death_signal()
