"""Chromium, driven by the WebDriver protocol (W3C) through chromedriver: just enough to visit pages
and to look at the cookies that the browser keeps."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .base import HOST, Service, require_command


class ChromiumService(Service):
    name = "chromium"
    seconds_to_start = 60

    def prepare(self) -> None:
        self.browser = require_command("chromium", "chromium", "chromium-driver")
        self.driver = require_command("chromedriver", "chromium", "chromium-driver")

    def launch(self) -> None:
        self.spawn(self.driver, f"--port={self.port()}")

    def ready(self) -> bool:
        try:
            return bool(self.command("GET", "/status")["ready"])
        except OSError:
            return False

    def exports(self) -> dict[str, str]:
        return {"CHROMIUM_URL": self.url}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def command(self, method: str, path: str, body: Any = None) -> Any:
        """One command of the protocol; RuntimeError when the driver refuses it."""
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self) -> Window:
        """A window of a new browser, with no cookies. Every name is this machine."""
        profile = self.folder / f"profile-{len(list(self.folder.glob('profile-*')))}"
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--host-resolver-rules=MAP * " + HOST,
            f"--user-data-dir={profile}",
        ]  # fmt: skip
        wanted = {
            "acceptInsecureCerts": True,
            "goog:chromeOptions": {"binary": self.browser, "args": arguments},
        }
        made = self.command("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        return Window(self, f"/session/{made['sessionId']}", made["capabilities"])


class Window:
    def __init__(self, service: ChromiumService, path: str, capabilities: dict[str, Any]) -> None:
        self._service, self._path = service, path
        self.version: str = capabilities["browserVersion"]

    def visit(self, url: str) -> str:
        """The text of the page."""
        self._do("POST", "/url", {"url": url})
        return self.run("return document.body.innerText")

    def run(self, script: str) -> Any:
        """What a function of JavaScript returns."""
        return self._do("POST", "/execute/sync", {"script": script, "args": []})

    def cookies(self) -> list[dict[str, Any]]:
        """Every cookie that the browser keeps, of whatever site."""
        command = {"cmd": "Storage.getCookies", "params": {}}
        cookies: list[dict[str, Any]] = self._do("POST", "/goog/cdp/execute", command)["cookies"]
        return cookies

    def close(self) -> None:
        self._do("DELETE", "")

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._service.command(method, self._path + path, body)


def certificate(folder: Path) -> tuple[str, str]:
    """(certificate, key) of a server that nobody has vouched for."""
    openssl = require_command("openssl", "openssl")
    files = folder / "server.crt", folder / "server.key"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "30", "-subj", "/CN=localhost", "-out", str(files[0]),
            "-keyout", str(files[1]),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(files[0]), str(files[1])
