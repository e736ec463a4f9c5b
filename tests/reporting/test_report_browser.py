"""The report in a real browser: fits a phone, follows light and dark, asks for nothing."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from optpo.reporting.html import write_report

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PHONE = 390


class Browser:
    """Headless Chromium, spoken to over two pipes in its debugging protocol."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            message = "chromium is not installed: apt-get install -y chromium"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        # Chromium reads 3 and writes 4; high numbers first, so that neither overwrites the other.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (commands, replies)]
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)),  # noqa: PLW1509
        )
        for end in (commands, replies, *ends):
            os.close(end)
        self._waiting = b""
        self._last = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._replies)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that arrive meanwhile are collected."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._last:
                assert "error" not in message, (method, message)
                return message["result"]

    def open(self, page: Path, width: int, scheme: str) -> None:
        """Load `page` in a window `width` wide, in the `light` or `dark` scheme."""
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=844, deviceScaleFactor=1, mobile=width == PHONE,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page, however long, as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def requests(self) -> list[str]:
        """Return what the page asked for since it was opened, but for itself and data URLs."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls[1:] if not url.startswith("data:")]

    def complaints(self) -> list[Any]:
        """Return the errors and messages that the page caused since it was opened."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            received = os.read(self._replies, 1 << 16)
            assert received, "chromium ended"
            self._waiting += received
        line, _, self._waiting = self._waiting.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(
    run_directory: Path, other_run_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    write_report([run_directory], folder / "one.html")
    write_report([run_directory, other_run_directory], folder / "two.html")
    return {"one": folder / "one.html", "two": folder / "two.html"}


@pytest.mark.parametrize("width", [1280, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["one", "two"])
def test_page_fits_its_window_and_asks_for_nothing(
    browser: Browser, reports: dict[str, Path], which: str, scheme: str, width: int, tmp_path: Path
) -> None:
    browser.open(reports[which], width, scheme)
    # Everything open is the widest the page can get.
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate("innerWidth") == width
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    browser.screenshot(tmp_path / f"{which}-{scheme}-{width}.png")
    assert browser.requests() == []
    assert browser.complaints() == []


def test_page_follows_light_and_dark(browser: Browser, reports: dict[str, Path]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    text = "getComputedStyle(document.querySelector('figure svg text')).fill"
    browser.open(reports["one"], 1280, "light")
    light = browser.evaluate(paper), browser.evaluate(text)
    browser.open(reports["one"], 1280, "dark")
    dark = browser.evaluate(paper), browser.evaluate(text)
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_questions_can_be_searched_and_sorted(browser: Browser, reports: dict[str, Path]) -> None:
    browser.open(reports["one"], 1280, "light")
    shown = "[...document.querySelectorAll('.question')].filter(q => !q.hidden)"
    assert browser.evaluate(f"{shown}.length") == 40
    change = "document.querySelector('.controls').dispatchEvent(new Event('input'))"
    browser.evaluate(f"document.querySelectorAll('.controls select')[1].value = 'votes'; {change}")
    votes = browser.evaluate(f"{shown}.map(q => Number(q.dataset.votes))")
    assert votes == sorted(votes, reverse=True)
    browser.evaluate(f"document.querySelector('.controls input').value = '1 < 2'; {change}")
    assert browser.evaluate(f"{shown}.length") == 1


def test_a_script_from_the_data_does_not_run(
    browser: Browser, reports: dict[str, Path], tmp_path: Path
) -> None:
    """The policy in the page stops a script even where escaping were to fail."""
    page = reports["one"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("</h1>", "</h1><script>window.ran = true</script>", 1))
    browser.open(broken, 1280, "light")
    assert browser.evaluate("window.ran") is None
