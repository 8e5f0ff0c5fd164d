"""Requests a second of gunicorn with 2 worker processes, asked by wrk over loopback.

    python bench/throughput.py [--rounds 5] [--seconds 3] [--only TEXT,...] [--write]

Every kind is a gunicorn of its own; they are asked in turns for a few seconds each, so that drift
of the machine meets all alike. Server and wrk share the machine's CPUs. What counts is the ratio to
the application without a session (which gets the same Cookie header). wrk must be on PATH (Debian:
wrk).
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import report
import worker
from request import venv

HERE = Path(__file__).resolve().parent
SYNC = ("--workers", "2")
THREADS = ("--workers", "2", "--worker-class", "gthread", "--threads", "4")


@dataclass
class Site:
    name: str
    kind: str
    python: str = sys.executable
    workers: tuple[str, ...] = SYNC
    base: str = "none"
    modes: tuple[str, ...] = ("read", "write")
    rates: dict[str, list[float]] = field(default_factory=dict)
    port: int = 0
    cookie: str = worker.COOKIE

    def start(self, place: Path) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        place.mkdir()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [
                self.python, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", *self.workers,
                "--log-level", "error", "--chdir", str(HERE),
                f"worker:make_app({self.kind!r}, {str(place)!r})",
            ],
            env=environment,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                cookie = self.get("/untouched" if self.kind == "none" else "/new")
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{self.name} does not answer") from None
                time.sleep(0.05)
        self.cookie = cookie or self.cookie
        return process

    def get(self, path: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"{self.name}{path} answered {answer.status}")
            return (answer.getheader("Set-Cookie") or "").partition(";")[0] or None
        finally:
            connection.close()

    def ask(self, mode: str, seconds: float, connections: int) -> None:
        path = "untouched" if self.kind == "none" else mode
        done = subprocess.run(
            [
                "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-H",
                f"Cookie: {self.cookie}", f"http://127.0.0.1:{self.port}/{path}",
            ],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        if "Non-2xx" in done.stdout:
            raise SystemExit(f"{self.name}/{mode}: {done.stdout}")
        found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        assert found is not None
        self.rates.setdefault(mode, []).append(float(found.group(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--only", help="rows whose name begins with one of these")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    untouched = ("untouched",)
    sites = [
        Site("none", "none", modes=untouched),
        Site("none, threads", "none", modes=untouched, workers=THREADS),
        Site("sqlite", "sqlite"),
        Site("filesystem", "filesystem"),
        Site("sqlite, threads", "sqlite", workers=THREADS, base="none, threads"),
    ]
    if "BENCH_REDIS_URL" in os.environ:
        old = venv("fs08")
        sites += [
            Site("redis", "redis-native"),
            Site("redis, threads", "redis-native", workers=THREADS, base="none, threads"),
            Site("redis, by redis-py", "redis"),
            Site("Flask-Session 0.8 redis", "redis", old),
            Site("Flask-Session 0.8 redis, threads", "redis", old, THREADS, "none, threads"),
        ]
    if options.only:
        chosen = ("none", *options.only.split(","))
        sites = [site for site in sites if site.name.startswith(chosen)]
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, site in enumerate(sites):
                processes.append(site.start(Path(folder) / str(number)))
            for turn in range(-1, options.rounds):
                for site in sites:
                    for mode in site.modes:
                        site.ask(mode, 1 if turn < 0 else options.seconds, options.connections)
            for site in sites:
                for rates in site.rates.values():
                    del rates[0]  # the first round warms up
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(timeout=30)
    base = {site.name: statistics.median(site.rates["untouched"]) for site in sites
            if site.modes == untouched}  # fmt: skip
    rows = []
    for site in sites:
        cells = []
        for mode in ("untouched", "read", "write"):
            rates = site.rates.get(mode)
            if not rates:
                cells.append("-")
                continue
            rate = statistics.median(rates)
            of = base[site.name if site.modes == untouched else site.base]
            cells.append(f"{rate / of:.2f} ({rate:,.0f})")
        rows.append([site.name, *cells])
    text = (
        "Ratio to the application without a session (requests a second), gunicorn with 2 sync"
        f" workers, or (threads) 2 gthread workers of 4 threads; medians of {options.rounds} rounds"
        f" of {options.seconds:g} s, {options.connections} connections.\n\n"
        + report.markdown(["sessions", "untouched", "read", "write"], rows)
    )
    report.tell("throughput", text, options.write)


if __name__ == "__main__":
    main()
