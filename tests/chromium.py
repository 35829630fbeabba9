"""A headless Chromium, spoken to over its debugging pipe: what a reader's browser makes of a page.

Nothing but the browser itself is needed: it reads commands from file descriptor 3 and writes answers and
events to 4, each a JSON text that ends with a zero byte (`--remote-debugging-pipe`).
"""

import base64
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.browser import find_browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
DEADLINE_S = 90


class Browser:
    """One page in one browser. `console` has what the page logged or broke, in order."""

    def __init__(self, width=1400, height=900, *, dark=False):
        self._folder = tempfile.TemporaryDirectory(
            prefix="ftbench-chromium-", ignore_cleanup_errors=True
        )
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        shell = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
        browser = [find_browser(), *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *browser],
            pass_fds=(command_end, answer_end),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_end)
        os.close(answer_end)
        self._buffer, self._number, self._session = b"", 0, None
        self.console, self.requests = [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.media(dark=dark)
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._commands)
        os.close(self._answers)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def call(self, method, **params):
        """Return the answer to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, file):
        """Open a report and wait until every chart of it is drawn; return the seconds that took."""
        self.console.clear()
        self.requests.clear()
        began = time.monotonic()
        self.call("Page.navigate", url=Path(file).resolve().as_uri())
        while self.evaluate("document.documentElement?.dataset.ready") != "true":
            said = "; ".join(self.console)
            assert time.monotonic() < began + DEADLINE_S, f"the page is not ready: {said}"
            time.sleep(0.02)
        return self.evaluate("performance.getEntriesByName('ftbench-ready')[0].startTime") / 1000

    def evaluate(self, expression):
        """Return the value of a JavaScript expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def resize(self, width, height=900):
        """Give the page another size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def media(self, *, dark=False, printed=False):
        """Say what the reader's system prefers, and whether the page is printed."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if printed else "", features=[scheme])

    def press(self, key, code, text=""):
        """Press a key on what has the focus."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
            )

    def screenshot(self, file, *, top=0, height=None, scale=1):
        """Write a picture of the page, or of a part of it from a height down; `scale` is pixels per CSS pixel."""
        width, whole = (
            self.evaluate(f"document.documentElement.{n}") for n in ("clientWidth", "scrollHeight")
        )
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": scale}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(found["data"]))

    def _next(self):
        """Return the next message, and keep what it says of the page."""
        while b"\0" not in self._buffer:
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser ended"
            self._buffer += read
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                words = (str(one.get("value", one.get("description"))) for one in params["args"])
                self.console.append(f"{params['type']}: {' '.join(words)}")
            case "Runtime.exceptionThrown":
                self.console.append(f"exception: {params['exceptionDetails']}")
            case "Log.entryAdded":
                self.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
        return message
