"""Opens a page in a headless Chromium and says what a reader would stumble over."""

import contextlib
import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import websocket

from rai_utils.publishing.report import browser_command

# Elements that reach past the page, or that scroll sideways in themselves.
FAULTS = """
(() => {
  document.querySelectorAll('details').forEach(part => { part.open = true; });
  const wide = [...document.querySelectorAll('body *')].filter(element => {
    const head = element.closest('thead');
    if (head && getComputedStyle(head).position == 'absolute') return false;
    const box = element.getBoundingClientRect();
    const scrolls = ['auto', 'scroll'].includes(getComputedStyle(element).overflowX)
      && element.scrollWidth > element.clientWidth;
    return scrolls || (box.width > 0 && box.right > document.documentElement.clientWidth + 0.5);
  });
  return {
    page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    width: window.innerWidth,
    wide: wide.slice(0, 5).map(element => element.outerHTML.slice(0, 300)),
    missing: [...document.images].filter(image => !image.complete || image.naturalWidth == 0)
      .map(image => image.alt),
    images: document.images.length,
    equations: [...document.querySelectorAll('math')]
      .filter(equation => equation.getBoundingClientRect().height > 0).length,
    unnamed: [...document.images].filter(image => !image.alt.trim()).length,
    dead: [...document.querySelectorAll('a[href^="#"]')].map(link => link.hash.slice(1))
      .filter(name => !document.getElementById(name)),
  };
})()
"""


class Page:
    """A page in a browser of its own; ``messages`` are what it wrote to its console or missed."""

    def __init__(self, browser: str, place: Path | str) -> None:
        self._kept = contextlib.ExitStack()
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        profile = Path(self._kept.enter_context(folder))
        command = browser_command(browser, str(profile))
        command += ["--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._kept.callback(process.wait)
        self._kept.callback(process.terminate)
        port = wait_for(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        address = f"http://127.0.0.1:{port}/json"
        with urllib.request.urlopen(address, timeout=20) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        self._socket = websocket.create_connection(
            target["webSocketDebuggerUrl"], timeout=180, suppress_origin=True
        )
        self._kept.callback(self._socket.close)
        self._count = 0
        self._loaded = False
        self.messages: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self._address = place if isinstance(place, str) else place.resolve().as_uri()

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def send(self, method: str, **parameters):
        """Send one command and return its result; note what the page reports meanwhile."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = self._receive()
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    def open_at(self, width: int, height: int = 900) -> dict:
        """Open the page in a window of this width; return its faults."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._loaded = False
        self.send("Page.navigate", url=self._address)
        while not self._loaded:
            self._receive()
        return self.evaluate(FAULTS)

    def evaluate(self, expression: str):
        """Return the value of an expression in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"]["value"]

    def _receive(self) -> dict:
        message = json.loads(self._socket.recv())
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Network.loadingFailed":
                self.messages.append(json.dumps(parameters)[:2000])
            case "Log.entryAdded":
                self.messages.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                address = parameters["request"]["url"]
                if not address.startswith(("data:", self._address)):
                    self.messages.append(f"asks for {address[:200]}")
        return message


def wait_for(value, seconds: float = 90.0):
    """Return what ``value()`` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, IndexError):
            return value()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
