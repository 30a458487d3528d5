"""Chromium for tests and checks of pages: Debian's, driven by Selenium; whatever would leave the page is counted."""

from __future__ import annotations

import base64
import json
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever is asked for by name is not found
)
INSTALL = "apt-get install chromium chromium-driver, and pip install -e '.[dev]' for Selenium"
AXE = Path(__file__).parent.parent / ".page-check" / "node_modules" / "axe-core" / "axe.min.js"
INSTALL_AXE = "npm install --prefix .page-check axe-core"


ASK_AXE = """
const serious = (v) => ['serious', 'critical'].includes(v.impact);
const told = (v) => [v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))];
axe.run().then((found) => done(found.violations.filter(serious).map(told)));
"""


def missing() -> str:
    """What to install where no browser can be driven; empty where one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return f"no Selenium: {INSTALL}"
    return "" if shutil.which("chromium") and shutil.which("chromedriver") else f"no Chromium: {INSTALL}"


class Browser:
    """A window that no request leaves."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for flag in FLAGS:
            options.add_argument(flag)
        self.driver: Any = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        self.driver.set_script_timeout(60)
        self.look(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def look(self, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Set width, height, colour scheme and medium."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # nothing scrolls while we look
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, page: Path, address: str = "") -> None:
        """Open a page anew, with what stands after #, and wait until its charts stand."""
        self.driver.get("about:blank")
        self.driver.get(f"{page.resolve().as_uri()}{address}")
        self.ready()

    def ready(self, seconds: float = 30.0) -> None:
        """Wait until no drawing is under way."""
        deadline = time.monotonic() + seconds
        while not self.run("return typeof isQuiet === 'function' && isQuiet()"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the page is not ready after {seconds} s: {self.complaints()}")
            time.sleep(0.02)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def later(self, script: str, *arguments: Any) -> Any:
        """Run a script that calls ``done(result)`` when it is."""
        return self.driver.execute_async_script(f"const done = arguments[arguments.length - 1];{script}", *arguments)

    def set(self, control: str, value: str) -> None:
        """Set a control as a person would, and wait for the charts."""
        self.run(
            "const c = document.getElementById(arguments[0]);"
            "if (c.type === 'checkbox') { if (c.checked !== (arguments[1] === '1')) c.click(); }"
            "else { c.value = arguments[1]; c.dispatchEvent(new Event('change', {bubbles: true})); }",
            control,
            value,
        )
        self.ready()

    def press(self, *keys: str) -> None:
        """Press keys where the focus is: names such as Tab, ArrowRight, Enter."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            about = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
            text = {"text": "\r"} if key == "Enter" else {}
            self.command("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def complaints(self) -> list[str]:
        """What the console says that is worse than a note."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, other than the page itself and what it holds within."""
        events = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:", "blob:", "about:", "chrome:"))]

    def faults(self) -> list[str]:
        """Serious accessibility faults by axe-core, each with where it is."""
        self.command("Page.setBypassCSP", enabled=True)
        self.run(AXE.read_text())
        return [f"{name}: {text}: {nodes}" for name, text, nodes in self.later(ASK_AXE)]

    def picture(self, file: Path, whole: bool = True) -> Path:
        """The page as PNG."""
        found = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))
        return file

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def print(self, file: Path) -> Path:
        """The page as it prints."""
        file.write_bytes(base64.b64decode(self.command("Page.printToPDF", printBackground=True)["data"]))
        return file
