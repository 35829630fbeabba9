"""Imported first by the fork server: makes it end with the process that started it, even if that is killed.

By itself, the server ends only when all its clients have ended. The workers that it forks are clients as well: a
worker that hangs in native code would keep the server alive after the parent's end.
"""

from ftbench.worker.process.lifeline import set_death_signal

set_death_signal()
