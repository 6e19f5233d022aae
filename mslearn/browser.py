"""A Jupyter and a Chromium of their own, driven from Python: for tests, timing and pictures.

Both listen on this machine only, under folders that are thrown away, so that nobody's settings leak
in and nothing is left behind. Needs the `test` extra (playwright) and an installed Chromium.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "msedge")
FILES = (  # where macOS and Windows keep theirs, which is on no PATH
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
QUIET = {  # no news, no windowing that takes cells out of the page, no dialogues
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
READY = """() => {
  const widget = window.jupyterapp?.shell?.currentWidget;
  const kernel = widget?.sessionContext?.session?.kernel;
  return Boolean(widget?.context?.isReady && kernel?.connectionStatus === "connected"
    && ["idle", "busy"].includes(kernel.status));
}"""
SAVED = "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"


def chromium() -> str | None:
    """The path of an installed Chromium, Chrome or Edge; `MSLEARN_BROWSER` names another one."""
    places = (os.environ.get("MSLEARN_BROWSER"), *map(shutil.which, NAMES), *FILES)
    return next((path for path in places if path and Path(path).is_file()), None)


@contextlib.contextmanager
def jupyterlab(
    folder: Path, seconds: float = 60.0, app: str = "jupyterlab"
) -> Iterator[dict[str, Any]]:
    """Serve `folder` with JupyterLab, or Notebook 7 (`app="notebook"`).

    Gives the server's own account of itself (`url`, `token`) and the app's name (`app`). Raises
    OSError with the end of the server's log when it does not come up in `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="mslearn-lab-") as private:
        log = Path(private) / "server.log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", app, "--no-browser", *_arguments(folder)],
                env=_environment(Path(private)),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield {**_account(server, Path(private) / "runtime", log, seconds), "app": app}
        finally:
            server.terminate()  # the server ends its kernels before itself
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _arguments(folder: Path) -> list[str]:
    values = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,  # the system picks a free one; the server writes down which
        "ServerApp.root_dir": folder,
        "ServerApp.allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
        "LabApp.expose_app_in_browser": True,
        "JupyterNotebookApp.expose_app_in_browser": True,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def _environment(private: Path) -> dict[str, str]:
    """Every folder that Jupyter and IPython look into, under `private`; this Python's kernel."""
    env = dict(os.environ, JUPYTER_PREFER_ENV_PATH="1", JUPYTER_TOKEN=secrets.token_hex(16))
    for name in ("CONFIG", "DATA", "RUNTIME"):
        env[f"JUPYTER_{name}_DIR"] = str(private / name.lower())
    for name in ("SETTINGS", "WORKSPACES"):
        env[f"JUPYTERLAB_{name}_DIR"] = str(private / name.lower())
    env["IPYTHONDIR"] = str(private / "ipython")
    overrides = private / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(QUIET))
    return env


def _account(server: subprocess.Popen, runtime: Path, log: Path, seconds: float) -> dict[str, Any]:
    """What the server writes about itself once it listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError):  # half-written: look again
                return json.loads(path.read_text())
        time.sleep(0.1)
    raise OSError(f"Jupyter did not start within {seconds:.0f} s:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def window(width: int = 1200, height: int = 1100, dark: bool = False) -> Iterator[Any]:
    """A fresh page of a headless Chromium. Raises OSError with the mend where there is none."""
    path = chromium()
    if path is None:
        raise OSError("no Chromium found: install chromium or Google Chrome and have it on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            scheme = "dark" if dark else "light"
            size = {"width": width, "height": height}
            page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()


class Notebook:
    """One notebook in one page of JupyterLab or Notebook 7."""

    def __init__(self, page: Any, lab: dict[str, Any], path: str) -> None:
        self.page, self.lab, self.path = page, lab, path
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")

    def open(self, workspace: str = "auto-course", kernel: bool = True) -> None:
        """Open it, with a kernel that is ready or without waiting for one."""
        lab = f"lab/workspaces/{workspace}/tree/{self.path}?reset&"
        place = lab if self.lab["app"] == "jupyterlab" else f"notebooks/{self.path}?"
        self.page.goto("about:blank")  # else the same address is not loaded again
        self.page.goto(f"{self.lab['url']}{place}token={self.lab['token']}")
        self.ready() if kernel else self.cells.first.wait_for()

    def ready(self) -> None:
        """Wait until the page has its kernel."""
        self.page.wait_for_function(READY)

    def run(self, index: int, wait: bool = True) -> None:
        """Run code cell `index` (from 0) as a person does, and wait until it has ended."""
        cell = self.cells.nth(index)
        cell.locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Control+Enter")
        self._prompt(index, r"\[(\d+|\*)\]:")
        if wait:
            self._prompt(index, r"\[\d+\]:")

    def _prompt(self, index: int, pattern: str, seconds: float = 300) -> None:
        from playwright.sync_api import expect

        prompt = self.cells.nth(index).locator(".jp-InputPrompt").first
        expect(prompt).to_have_text(re.compile(pattern), timeout=1000 * seconds)

    def output(self, index: int) -> str:
        """The text under code cell `index`."""
        return self.cells.nth(index).locator(".jp-OutputArea-output").last.inner_text()

    def save(self) -> None:
        """Save the notebook and wait until it is on disk."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function(SAVED)

    def shut_down(self) -> None:
        """End the kernel."""
        stop = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
        self.page.evaluate(stop)
