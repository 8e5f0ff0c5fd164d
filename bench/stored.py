"""What the number of stored sessions costs: a read, a login, the bytes of a session, and a purge.

    python bench/stored.py [--counts 1000,10000,100000,1000000] [--requests 2000]
                           [--place FOLDER] [--write]

One application a count, each on a store of its own that was filled before; they take turns, so the
machine's noise meets all alike. Logins are compared with the predecessor's where more files are
stored than its default threshold. Then a million expired rows are purged by another process while
requests go on, beside the same requests without a purge: what counts is their 99.9th percentile.
--place chooses the file system.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report
import request
import worker
from flask_session import _core

ROUND = 20
DAY = 86_400_000


def store_of(app: Any) -> Any:
    return app.extensions["flask_session"].store


def fill(app: Any, count: int) -> None:
    value = _core.encode({"_permanent": True, **worker.content(300)})
    store = store_of(app)
    for number in range(count):
        store.create(f"session:stored-{number:020d}", value, 30 * DAY)


def size_of(place: Path) -> int:
    """Bytes on the disk."""
    return sum(
        path.lstat().st_blocks * 512 for path in place.rglob("*") if not path.name.endswith("-shm")
    )


class Reader:
    """Visits with sessions chosen by chance among those that are stored."""

    def __init__(self, app: Any, count: int) -> None:
        self.app, self.count = app, count
        self.chance = random.Random(1)

    def read(self) -> int:
        number = self.chance.randrange(self.count)
        return worker.Visitor(self.app, f"session=stored-{number:020d}").visit("/read")

    def login(self) -> int:
        return worker.Visitor(self.app).visit("/new")


def interleaved(readers: dict[int, Reader], requests: int) -> dict[str, dict[int, list[int]]]:
    times: dict[str, dict[int, list[int]]] = {
        mode: {count: [] for count in readers} for mode in ("read", "login")
    }
    for turn in range(requests // ROUND + 1):
        for mode, taken in times.items():
            for count, reader in readers.items():
                step = getattr(reader, mode)
                measured = [step() for _ in range(ROUND)]
                if turn:  # the first turn warms up
                    taken[count] += measured
    return times


def counts(kind: str, place: Path, numbers: list[int], requests: int) -> list[list[str]]:
    readers, bytes_of = {}, {}
    for number in numbers:
        folder = place / f"{kind}-{number}"
        folder.mkdir()
        app = worker.make_app(kind, str(folder))
        fill(app, number)
        app.extensions["flask_session"].store.maintain()
        bytes_of[number] = size_of(folder) / number
        readers[number] = Reader(app, number)
    times = interleaved(readers, requests)
    first = numbers[0]
    rows = []
    for mode in ("read", "login"):
        base = report.median(times[mode][first])
        rows.append(
            [
                kind,
                mode,
                *(
                    f"{report.median(times[mode][n]) / base:.2f}"
                    f" ({report.median(times[mode][n]):.1f})"
                    for n in numbers
                ),
            ]
        )
    rows.append([kind, "bytes a session", *(f"{bytes_of[number]:.0f}" for number in numbers)])
    return rows


# ---- above the predecessor's threshold ---------------------------------------------------------


def crowded(place: Path, stored: int) -> str:
    """Logins with the default SESSION_FILE_THRESHOLD, which is 500."""

    def run(row: request.Row, folder: Path, mode: str, count: int, threshold: str = "500") -> Any:
        os.environ["BENCH_FILE_THRESHOLD"] = threshold
        application = request.Worker(row, str(folder), 0)
        del os.environ["BENCH_FILE_THRESHOLD"]
        times = application.run(mode, count)
        application.close()
        return times

    medians = {"none": report.median(run(request.Row("none", "none"), place, "untouched", 200))}
    for name, row, logins in (
        ("ours", request.Row("filesystem", "filesystem"), 200),
        ("theirs", request.Row("Flask-Session 0.8", "filesystem", request.venv("fs08")), 5),
    ):
        folder = place / f"crowded-{name}"
        folder.mkdir()
        run(row, folder, "new", stored, threshold="1000000")
        medians[name] = report.median(run(row, folder, "new", logins))
    cost = {name: medians[name] - medians["none"] for name in ("ours", "theirs")}
    return (
        f"With {stored:,} files stored and the default SESSION_FILE_THRESHOLD a login costs"
        f" {cost['ours']:.0f} us with ours and {cost['theirs']:,.0f} us (median of the first five,"
        f" which delete live sessions) with Flask-Session 0.8: {cost['theirs'] / cost['ours']:.0f}"
        " times as much"
    )


# ---- purge --------------------------------------------------------------------------------------

# All expired at once; in a process of its own, as SQLite's locks belong to a process.
EXPIRE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("UPDATE cession_sessions SET expires = 1, sweep = 1")
database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""

PURGE = """
import sys, time
sys.path.insert(0, sys.argv[3])
import worker
app = worker.make_app(sys.argv[1], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
begin = time.monotonic()
gone = app.extensions["flask_session"].purge()
print(gone, time.monotonic() - begin, flush=True)
"""


def purge(kind: str, place: Path, rows: int) -> str:
    visitors: list[worker.Visitor] = []

    def make(name: str) -> Path:
        folder = place / f"{kind}-{name}"
        folder.mkdir()
        app = worker.make_app(kind, str(folder))
        visitors[:] = [worker.Visitor(app) for _ in range(20)]
        for visitor in visitors:
            visitor.visit("/new")
        return folder

    def requests(seconds: float, until: Any = None) -> list[int]:
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end and (until is None or until.poll() is None):
            for visitor in visitors:
                times.append(visitor.visit("/read"))
                times.append(visitor.visit("/write"))
        return times

    make("calm")
    calm = requests(5)
    folder = make("purged")
    fill(visitors[0].app, rows)
    subprocess.run([sys.executable, "-c", EXPIRE, folder / "bench.sqlite3"], check=True)
    for visitor in visitors:
        visitor.visit("/new")
    process = subprocess.Popen(
        [sys.executable, "-c", PURGE, kind, str(folder), str(Path(__file__).resolve().parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    busy = requests(120, process)
    gone, seconds = process.stdout.read().split()
    one, other = report.percentile(calm, 0.999) / 1000, report.percentile(busy, 0.999) / 1000
    return (
        f"{kind}: {int(gone):,} expired of {rows:,} were purged in {float(seconds):.1f} s by"
        f" another process; 99.9th percentile of requests meanwhile {other:.2f} ms"
        f" ({len(busy):,} requests), without a purge {one:.2f} ms ({len(calm):,})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", default="1000,10000,100000,1000000")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--purge", type=int, default=1_000_000, help="expired rows")
    parser.add_argument("--place", help="folder for the stores (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    numbers = [int(number) for number in options.counts.split(",")]
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        place = Path(folder)
        rows = counts("sqlite", place, numbers, options.requests)
        few = [number for number in numbers if number <= 100_000]  # a file each
        padding = ["-"] * (len(numbers) - len(few))
        rows += [[*row, *padding] for row in counts("filesystem", place, few, options.requests)]
        beside = crowded(place, 10_000)
        told = purge("sqlite", place, options.purge)
    head = ["store", "", *(f"{number:,} stored" for number in numbers)]
    text = (
        "Ratio to the first column (median us) of whole requests with sessions of 300 bytes chosen"
        f" by chance.\n\n{report.markdown(head, rows)}\n\n{beside}.\n\n{told}.\n"
    )
    report.tell("stored", text, options.write)


if __name__ == "__main__":
    main()
