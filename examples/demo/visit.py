"""A visit to the example under gunicorn with two worker processes, step by step.

    make demo

Starts the server on a free port with its sessions in a temporary folder, does over HTTP what a
person would do in a browser, and prints after each step what the store was asked and what it holds.
Every step is checked; the exit status is 1 when one does not hold.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from flask_session import _core

HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
WORKERS = 2
SECONDS_TO_START = 30


class StepFailed(Exception):
    pass


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise StepFailed(what)


@dataclass
class Answer:
    status: int
    text: str
    set_cookie: str | None
    worker: str
    operations: dict[str, int]

    @property
    def cookie(self) -> str | None:
        """name=value of the cookie that this answer sets; None when it sets none or deletes it."""
        if self.set_cookie is None or "Max-Age=0" in self.set_cookie:
            return None
        return self.set_cookie.partition(";")[0]


class Server:
    """gunicorn with the example."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]

    def start(self) -> None:
        log = self.instance / "gunicorn.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--chdir", str(HERE),
                 "--bind", f"{HOST}:{self.port}", "--no-control-socket", "app:app"],
                env={**os.environ, "DEMO_INSTANCE": str(self.instance)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        workers: set[str] = set()
        end = time.monotonic() + SECONDS_TO_START
        while len(workers) < WORKERS:
            if self.process.poll() is not None or time.monotonic() > end:
                raise StepFailed(f"gunicorn did not start:\n{log.read_text()}")
            try:
                # Two requests at once, so that both workers get one sooner or later.
                with ThreadPoolExecutor(4) as pool:
                    answers = pool.map(lambda _: self.request("GET", "/about"), range(8))
                    workers.update(answer.worker for answer in answers)
            except OSError:
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(self, method: str, path: str, cookie: str | None = None, **form: str) -> Answer:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        headers = {"Cookie": cookie} if cookie else {}
        body = None
        if method == "POST":
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        asked = response.getheader("X-Store-Operations") or ""
        operations = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", asked)}
        return Answer(
            response.status,
            text,
            response.getheader("Set-Cookie"),
            response.getheader("X-Worker") or "?",
            operations,
        )


def stored_sessions(instance: Path) -> list[str]:
    """What the store holds, read from its file by this process, which serves nothing."""
    path = instance / "flask_session.sqlite3"
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT value, expires FROM cession_sessions WHERE expires > ? ORDER BY created, id",
            (time.time() * 1000,),
        ).fetchall()
    finally:
        connection.close()
    lines = []
    for value, expires in rows:
        left = expires / 1000 - time.time()
        lifetime = f"{left / 86400:.0f} days" if left > 86400 else f"{left:.0f} s"
        try:
            content = short(_core.decode(value))
        except ValueError:
            content = "a retired id, no data"
        lines.append(f"{len(value)} bytes, expires in {lifetime}: {content}")
    return lines


def short(content: dict[str, object]) -> str:
    notes = sum(key.startswith("note:") for key in content)
    shown = {key: value for key, value in content.items() if not key.startswith("note:")}
    text = ", ".join(f"{key!r}: {value!r}" for key, value in shown.items())
    return "{" + text + (f", and {notes} notes" if notes else "") + "}"


class Report:
    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self.number = 0

    def __call__(self, what: str, *answers: Answer) -> None:
        self.number += 1
        print(f"{self.number:2}. {what}")
        total: dict[str, int] = {}
        for answer in answers:
            for name, count in answer.operations.items():
                total[name] = total.get(name, 0) + count
        if answers:
            words = ", ".join(f"{count} {name}" for name, count in total.items()) or "none"
            workers = len({answer.worker for answer in answers})
            by = f" for {len(answers)} requests, answered by {workers} processes" * (
                len(answers) > 1
            )
            print(f"      store operations: {words}{by}")
        for line in stored_sessions(self.instance) or ["nothing"]:
            print(f"      stored: {line}")
        sys.stdout.flush()


def visit(server: Server, report: Report) -> None:
    answer = server.request("GET", "/about")
    expect(answer.status == 200 and answer.set_cookie is None, "/about sets a cookie")
    expect(not answer.operations, "/about asked the store")
    report("A page that does not use the session: no store operation, no cookie", answer)

    answer = server.request("GET", "/")
    expect("Not logged in" in answer.text and answer.set_cookie is None, "a stranger is known")
    expect(not answer.operations, "a stranger without a cookie costs a store operation")
    report("A stranger looks at the page: nothing to load, nothing stored", answer)

    answer = server.request("POST", "/login", username="Ada")
    cookie = answer.cookie
    expect(answer.status == 302 and cookie is not None, "login sets no cookie")
    expect("Ada" not in (answer.set_cookie or ""), "the cookie contains the data")
    report("Log in as Ada: the browser gets an id, the data stays on the server", answer)

    answer = server.request("GET", "/", cookie)
    expect("Hello, Ada" in answer.text, "the name is not there")
    expect(answer.operations == {"load": 1}, f"a read took {answer.operations}")
    report("The page knows the name: one read", answer)

    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda n: server.request("POST", "/note", cookie, text=str(n)), range(20))
        )
    expect(all(answer.status == 302 for answer in answers), "a concurrent request failed")
    answer = server.request("GET", "/", cookie)
    kept = len(re.findall(r"<li>\d+</li>", answer.text))
    expect(kept == 20, f"of 20 notes {kept} were kept")
    report("20 requests at once, each adds a note to the same session: all 20 are kept", *answers)

    server.stop()
    server.start()
    answer = server.request("GET", "/", cookie)
    expect("Hello, Ada" in answer.text, "the restart logged Ada out")
    report("The server was restarted: still logged in", answer)

    answer = server.request("POST", "/logout", cookie)
    expect("Max-Age=0" in (answer.set_cookie or ""), "logout does not delete the cookie")
    report("Log out: the record is removed, the cookie deleted", answer)

    answer = server.request("GET", "/", cookie)
    expect("Not logged in" in answer.text, "the old cookie still works")
    expect(answer.set_cookie is None or answer.cookie is None, "the old id was adopted")
    report("The old cookie, sent again: refused", answer)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cession-demo-") as folder:
        server = Server(Path(folder))
        print(f"A Flask application, gunicorn with {WORKERS} worker processes, SESSION_TYPE=sqlite")
        try:
            server.start()
            visit(server, Report(Path(folder)))
        except StepFailed as failure:
            print(f"FAILED: {failure}")
            return 1
        finally:
            if hasattr(server, "process"):
                server.stop()
    print("All steps hold.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
