"""Web servers with an application under test (gunicorn, `flask run`), and a browser for them."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from .base import (
    HOST,
    end_processes,
    free_port,
    process_start,
    require_command,
    tcp_answers,
    wait_until,
)


class WebServer(ABC):
    """One server process (with its workers) that serves an application on a port of its own."""

    seconds_to_start = 60.0

    def __init__(
        self,
        folder: Path,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        python: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.app = app
        self.env = dict(env or {})
        self.python = python or sys.executable
        self.arguments = list(arguments)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._family: set[tuple[int, int]] = set()

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def prepare(self) -> None:
        """Remove what a former run left."""

    @abstractmethod
    def ready(self) -> bool: ...

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        chosen = self.port
        for _ in range(3):
            self.port = chosen or free_port()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.prepare()
            with (self.folder / "server.log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(),
                    cwd=self.folder,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self.env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            if wait_until(self.ready, self.seconds_to_start, self.running):
                self._look()
                return
            taken = "already in use" in self.log().lower()
            self.stop()
            if not taken:
                break
        raise RuntimeError(f"{type(self).__name__} does not start:\n{self.log()[-3000:]}")

    def children(self) -> list[int]:
        """The processes whose parent is the server: gunicorn's workers."""
        if not self.running():
            return []
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except FileNotFoundError:
            return []

    def _look(self) -> None:
        """Remember the family by start times: a number alone may soon be another process's."""
        if self.running():
            for pid in (self.pid, *self.children()):
                started = process_start(pid)
                if started is not None:
                    self._family.add((pid, started))

    def stop(self) -> None:
        """End it in the orderly way, children and all."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the server and its workers."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self._look()
        if self.process is not None and self.running():
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                end_processes(list(self._family), seconds=0, first=signal.SIGKILL)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end_processes(list(self._family))
        self._family.clear()

    def restart(self) -> None:
        """Stop it and start it again on the same port."""
        self.stop()
        self.start()


class Gunicorn(WebServer):
    def __init__(
        self,
        folder: Path,
        app: str,
        *,
        workers: int = 2,
        worker_class: str = "sync",
        threads: int = 1,
        preload: bool = False,
        env: Mapping[str, str] | None = None,
        python: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, app, env=env, python=python, arguments=arguments)
        self.workers = workers
        self.worker_class = worker_class
        self.threads = threads
        self.preload = preload

    def command(self) -> list[str]:
        command = [
            self.python, "-m", "gunicorn", "--config", str(self.folder / "gunicorn.conf.py"),
            "--bind", f"{HOST}:{self.port}", "--workers", str(self.workers),
            "--worker-class", self.worker_class, "--timeout", "60", "--graceful-timeout", "5",
            "--capture-output", "--no-control-socket",
        ]  # fmt: skip
        if self.threads != 1:
            command += ["--threads", str(self.threads)]
        if self.preload:
            command.append("--preload")
        return [*command, *self.arguments, self.app]

    def prepare(self) -> None:
        # A worker that has loaded the application says so by a file: that is what "ready" means.
        self._ready_folder.mkdir(exist_ok=True)
        for path in self._ready_folder.iterdir():
            path.unlink()
        (self.folder / "gunicorn.conf.py").write_text(
            "import os\n\n"
            "def post_worker_init(worker):\n"
            f"    open(os.path.join({str(self._ready_folder)!r}, str(os.getpid())), 'w').close()\n"
        )

    @property
    def _ready_folder(self) -> Path:
        return self.folder / "ready"

    def ready(self) -> bool:
        return len(list(self._ready_folder.iterdir())) >= self.workers

    def worker_pids(self) -> list[int]:
        return self.children()


class FlaskRun(WebServer):
    """`flask run`: Werkzeug's development server, one process with threads."""

    def command(self) -> list[str]:
        return [
            self.python, "-m", "flask", "--app", self.app, "run", "--host", HOST,
            "--port", str(self.port), "--no-reload", *self.arguments,
        ]  # fmt: skip

    def prepare(self) -> None:
        pass

    def ready(self) -> bool:
        return tcp_answers(self.port)


class Lighttpd(WebServer):
    """A program under CGI, at every path. `app` is its file; `env` is what it gets besides what
    CGI says: the server hands nothing else down."""

    def command(self) -> list[str]:
        lighttpd = require_command("lighttpd", "lighttpd")
        return [lighttpd, "-D", "-f", str(self.folder / "lighttpd.conf")]

    def prepare(self) -> None:
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        settings = "".join(
            f"export {name}={shlex.quote(text)}\n" for name, text in self.env.items()
        )
        page = root / "page"
        page.write_text(f"#!/bin/sh\n{settings}exec {shlex.quote(self.app)}\n")
        page.chmod(0o700)
        (self.folder / "lighttpd.conf").write_text(
            f"""server.document-root = "{root}"
server.bind = "{HOST}"
server.port = {self.port}
server.modules = ("mod_rewrite", "mod_cgi")
server.breakagelog = "{self.folder / "server.log"}"
url.rewrite-once = ("" => "/page")
cgi.assign = ("" => "")
"""
        )

    def ready(self) -> bool:
        return tcp_answers(self.port)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Browser:
    """Keeps the cookies of one site, as a browser does; one connection per request.

    It sends every cookie everywhere: Path, Domain and Secure are for tests to read in Set-Cookie.
    """

    url: str
    cookies: dict[str, str] = field(default_factory=dict)
    timeout: float = 30

    def get(self, path: str = "/", **options: object) -> Answer:
        return self.request("GET", path, **options)  # type: ignore[arg-type]

    def post(self, path: str, data: Mapping[str, str] | None = None, **options: object) -> Answer:
        return self.request("POST", path, data=data or {}, **options)  # type: ignore[arg-type]

    def request(
        self,
        method: str,
        path: str,
        *,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        follow: bool = True,
    ) -> Answer:
        answer = self._once(method, path, data, headers)
        for _ in range(10):
            location = answer.header("Location")
            if not follow or answer.status not in (301, 302, 303, 307, 308) or not location:
                break
            target = urlsplit(location)
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            if answer.status < 307:
                method, data = "GET", None
            answer = self._once(method, path, data, headers)
        return answer

    def _once(
        self,
        method: str,
        path: str,
        data: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        site = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            site.hostname or HOST, site.port, timeout=self.timeout
        )
        sent = dict(headers or {})
        if self.cookies and not any(name.lower() == "cookie" for name in sent):
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        body = None
        if data is not None:
            body = urlencode(data)
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
        for line in answer.all("Set-Cookie"):
            self._keep(line)
        return answer

    def _keep(self, line: str) -> None:
        pair, *attributes = (part.strip() for part in line.split(";"))
        name, _, value = pair.partition("=")
        gone = False
        for attribute in attributes:
            key, _, setting = attribute.partition("=")
            if key.lower() == "max-age":
                gone = int(setting) <= 0
                break
            if key.lower() == "expires":
                gone = parsedate_to_datetime(setting).timestamp() <= time.time()
        if gone:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value
