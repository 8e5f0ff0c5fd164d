"""Whole requests, in process: what a session costs beside the same application without one.

    python bench/request.py [--rounds 12] [--count 50] [--only TEXT,...] [--place FOLDER] [--write]

Every kind is an application in a process of its own, all pinned to one CPU; the rounds are
interleaved, so drift of the machine meets all alike. "none" is the same application with the same
Cookie header and no SECRET_KEY; it runs twice, and the second row shows the noise. Figures are
microseconds a request: first the ratio to "none", then median and 99th percentile. Predecessors and
Django run in pinned virtualenvs of their own, which are made when they are missing. Rows on a
server are there when its address is given (BENCH_REDIS_URL, BENCH_POSTGRES_URL).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report
from worker import MODES

HERE = Path(__file__).resolve().parent
#: A tmpfs: what a change of a file costs where no disk has a part in it.
SHARED_MEMORY = Path("/dev/shm")
#: Processes that a row has, one after the other.
GENERATIONS = 4


@dataclass
class Row:
    name: str
    kind: str
    python: str = sys.executable
    program: str = "worker.py"
    arguments: tuple[str, ...] = ()
    base: str = "none"  # the row that is 1.00
    in_memory: bool = False  # its files are in SHARED_MEMORY
    times: dict[str, list[int]] = field(default_factory=dict)


def venv(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.services", "venv", name],
        cwd=HERE.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def all_rows() -> list[Row]:
    old, django = venv("fs08"), venv("django")
    redis, postgres = "BENCH_REDIS_URL" in os.environ, "BENCH_POSTGRES_URL" in os.environ
    off = ("--refresh-off",)
    rows = [
        Row("none", "none"),
        Row("none again", "none"),
        Row("Flask's cookie", "cookie"),
        Row("memory", "memory"),
        Row("sqlite", "sqlite"),
        Row("sqlite, refresh off", "sqlite", arguments=off),
        Row("filesystem", "filesystem"),
    ]
    if SHARED_MEMORY.is_dir():
        rows += [Row("tmpfs: filesystem", "filesystem", in_memory=True)]
    if redis:
        rows += [Row("redis", "redis-native"), Row("redis, by redis-py", "redis")]
    if postgres:
        rows += [Row("postgresql, by psycopg 3", "postgresql")]
    rows += [
        Row("sqlalchemy, SQLite", "sqlalchemy-wal"),
        Row("Flask-Session 0.8 filesystem", "filesystem", old),
        Row("Flask-Session 0.8 filesystem, refresh off", "filesystem", old, arguments=off),
        Row("Flask-Session 0.8 SQLAlchemy, SQLite as it comes (FULL)", "sqlalchemy", old),
        Row("Flask-Session 0.8 SQLAlchemy, SQLite WAL, NORMAL", "sqlalchemy-wal", old),
    ]
    if SHARED_MEMORY.is_dir():
        rows += [Row("tmpfs: Flask-Session 0.8 filesystem", "filesystem", old, in_memory=True)]
    if redis:
        rows += [
            Row("Flask-Session 0.8 redis", "redis", old),
            Row("Flask-Session 0.8 redis, refresh off", "redis", old, arguments=off),
        ]
    if postgres:
        rows += [Row("Flask-Session 0.8 SQLAlchemy, PostgreSQL", "sqlalchemy-postgresql", old)]
    for name, kind in (("without", "none"), ("file", "file"), ("signed cookie", "cookie")):
        rows.append(Row(f"Django {name}", kind, django, "django_worker.py", base="Django without"))
    return rows


class Worker:
    """A row's application, in a process of its own."""

    def __init__(self, row: Row, place: str, cpu: int) -> None:
        self.row = row
        environment = dict(os.environ)
        if row.python != sys.executable:
            environment.pop("PYTHONPATH", None)  # its own packages only
        self.process = subprocess.Popen(
            [row.python, str(HERE / row.program), row.kind, place, *row.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        self.receive()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.row.name} ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, mode: str, count: int) -> list[int]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"mode": mode, "count": count}) + "\n")
        self.process.stdin.flush()
        times: list[int] = self.receive()
        return times

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def measure(
    rows: list[Row],
    place: str,
    rounds: int,
    count: int,
    cpu: int,
    modes: tuple[str, ...] = MODES,
    shared: str = "",
) -> None:
    """Fill the rows' times, in interleaved rounds. place: a folder for their files; shared: one in
    SHARED_MEMORY for the rows that want it.

    Where a process happens to lie in memory makes it up to a tenth faster or slower for as long as
    it lives, so every row has several, one after the other."""
    for generation in range(GENERATIONS):
        workers = []
        for number, row in enumerate(rows):
            folder = os.path.join(shared if row.in_memory else place, f"{number}-{generation}")
            os.mkdir(folder)
            workers.append(Worker(row, folder, cpu))
        for turn in range(-1, -(-rounds // GENERATIONS)):
            for mode in modes:
                for worker in workers:
                    if not answers(worker.row, mode):
                        continue
                    # Without a session: the same request in every mode, beside the others.
                    asked = "untouched" if worker.row.kind == "none" else mode
                    times = worker.run(asked, count)
                    if turn >= 0:  # the first round warms caches and files
                        worker.row.times.setdefault(mode, []).extend(times)
        for worker in workers:
            worker.close()


def answers(row: Row, mode: str) -> bool:
    return mode != "flash" or not row.name.startswith("Django")


def ratio(rows: list[Row], row: Row, mode: str) -> float:
    base = next(other for other in rows if other.name == row.base)
    return report.median(row.times[mode]) / report.median(base.times[mode])


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        cells = [
            f"{ratio(rows, row, mode):.2f} ({report.median(row.times[mode]):.1f};"
            f" {report.percentile(row.times[mode], 0.99):.0f})"
            if row.times.get(mode)
            else "-"
            for mode in MODES
        ]
        lines.append([row.name, *cells])
    return report.markdown(["sessions", *MODES], lines)


def against(rows: list[Row], ours: str, theirs: str) -> str:
    """How many times more the session part of their requests takes; ours may be nothing."""
    named = {row.name: row for row in rows}
    if ours not in named or theirs not in named:
        return ""
    parts = []
    for mode in MODES:
        none = report.median(named["none"].times[mode])
        noise = abs(report.median(named["none again"].times[mode]) - none)
        mine = report.median(named[ours].times[mode]) - none
        other = report.median(named[theirs].times[mode]) - none
        parts.append(
            f"{mode} {other / mine:.1f}" if mine > noise else f"{mode} (ours is below the noise)"
        )
    return f"- {theirs} to {ours}: " + ", ".join(parts)


def whole(rows: list[Row], ours: str, theirs: str) -> str:
    """How many times as long their whole request takes."""
    named = {row.name: row for row in rows}
    if ours not in named or theirs not in named:
        return ""
    parts = [
        f"{mode} {ratio(rows, named[theirs], mode) / ratio(rows, named[ours], mode):.2f}"
        for mode in MODES
    ]
    return f"- {theirs} to {ours}: " + ", ".join(parts)


def bars(rows: list[Row]) -> Any:
    shown = [row for row in rows if row.base == "none" and row.times.get("read")]
    modes = ("untouched", "read", "write", "new")

    def draw(axes: Any) -> None:
        height = 0.8 / len(modes)
        for position, mode in enumerate(modes):
            places = [index + position * height for index in range(len(shown))]
            axes.barh(places, [ratio(rows, row, mode) for row in shown], height, label=mode)
        axes.set_yticks([index + 0.3 for index in range(len(shown))])
        axes.set_yticklabels([row.name for row in shown], fontsize=7)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("time of a request; without a session = 1")
        axes.legend(fontsize=8)

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--count", type=int, default=50, help="requests a round and mode")
    parser.add_argument("--only", help="rows whose name begins with one of these")
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--place", help="folder for the stores (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    rows = all_rows()
    if options.only:
        chosen = ("none", *options.only.split(","))
        rows = [row for row in rows if row.name.startswith(chosen)]
    in_memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=options.place) as place,
        tempfile.TemporaryDirectory(dir=in_memory) as shared,
    ):
        measure(rows, place, options.rounds, options.count, options.cpu, shared=shared)
    pairs = [
        ("sqlite", "Flask's cookie"),
        ("filesystem", "Flask-Session 0.8 filesystem"),
        ("tmpfs: filesystem", "tmpfs: Flask-Session 0.8 filesystem"),
        ("sqlite", "Flask-Session 0.8 SQLAlchemy, SQLite WAL, NORMAL"),
        ("redis", "Flask-Session 0.8 redis"),
        ("redis, by redis-py", "Flask-Session 0.8 redis"),
        ("postgresql, by psycopg 3", "Flask-Session 0.8 SQLAlchemy, PostgreSQL"),
    ]
    wholes = [("sqlite", "Flask's cookie"), ("redis", "Flask-Session 0.8 redis")]
    lines = [line for pair in pairs if (line := against(rows, *pair))]
    whole_lines = [line for pair in wholes if (line := whole(rows, *pair))]
    text = (
        f"Ratio to no session (median us; 99th percentile us), {options.rounds} interleaved rounds"
        f" of {options.count} requests.\n\n{table(rows)}\n\nHow many times more a session costs"
        " (the request's median less the one without a session):\n\n"
        + "\n".join(lines)
        + "\n\nHow many times as long a whole request takes:\n\n"
        + "\n".join(whole_lines)
    )
    report.tell("request", text, options.write)
    report.plot("request", bars(rows), options.write)


if __name__ == "__main__":
    main()
