"""Stands for `ftbench.selfcheck.row`, without torch: it does what the name of its row says."""

import os
import sys
import time
from pathlib import Path

name, folder = sys.argv[1:]
print("it began", flush=True)
if name == "hangs":
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(600)
if name == "crashes":
    os.abort()
if name != "silent":
    answer = '{"status": "ok"}' if name != "garbles" else '{"status": "splendid"}'
    Path(folder, name, "answer.json").write_text(answer)
