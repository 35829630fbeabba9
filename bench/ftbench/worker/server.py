"""Imported first by the fork server: ties it to the process that started it, and makes it deaf to Ctrl-C.

By itself, the server ends only when all its clients have ended. The workers that it forks are clients as well: a
worker that hangs in native code would keep the server alive after the parent's end.
"""

from ftbench.worker.process.lifeline import ignore_interrupts, set_death_signal

ignore_interrupts()
set_death_signal()
