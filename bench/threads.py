"""Threads of one process on sqlite: the curve of throughput, and what writers do to readers.

    python bench/threads.py [--rounds 5] [--seconds 1] [--write]

The curve: 1, 2, 4 and 8 threads, each with a session of its own, ask the application in turns of a
read and a write as fast as they can, beside the same without a session. The paced writers: 4
threads read, each waiting after a request so that all together use about half a CPU; then 2
of them write instead. What counts is the readers' 99th percentile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from typing import Any

import report
import worker

THREADS = (1, 2, 4, 8)


def run(parts: list[Any], seconds: float) -> list[list[int]]:
    """Each part is (visitor, paths, pause): a thread that asks for the paths in turn; the
    nanoseconds of its requests."""
    times: list[list[int]] = [[] for _ in parts]
    start = threading.Barrier(len(parts) + 1)
    end = threading.Event()

    def visit(number: int, visitor: worker.Visitor, paths: tuple[str, ...], pause: float) -> None:
        start.wait()
        while not end.is_set():
            for path in paths:
                times[number].append(visitor.visit(path))
                if pause:
                    time.sleep(pause)

    threads = [
        threading.Thread(target=visit, args=(number, *part)) for number, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    time.sleep(seconds)
    end.set()
    for thread in threads:
        thread.join()
    return times


def visitor(app: Any, session: bool) -> worker.Visitor:
    made = worker.Visitor(app, None if session else worker.COOKIE)
    if session:
        made.visit("/new")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        apps = {kind: worker.make_app(kind, place) for kind in ("none", "sqlite")}
        paths = {"none": ("/untouched",), "sqlite": ("/read", "/write")}
        rates: dict[tuple[str, int], list[float]] = {}
        for turn in range(-1, options.rounds):
            for count in THREADS:
                for kind, app in apps.items():
                    parts = [(visitor(app, kind != "none"), paths[kind], 0) for _ in range(count)]
                    done = sum(len(times) for times in run(parts, options.seconds))
                    if turn >= 0:
                        rates.setdefault((kind, count), []).append(done / options.seconds)
        app = apps["sqlite"]
        # Four threads at half a CPU: each works an eighth of the time.
        alone = statistics.median(run([(visitor(app, True), ("/read",), 0)], 1)[0]) / 1e9
        pause = alone * 7
        quiet: list[int] = []
        beside: list[int] = []
        for _ in range(options.rounds):
            readers = [(visitor(app, True), ("/read",), pause) for _ in range(4)]
            quiet += [one for times in run(readers, 2 * options.seconds) for one in times]
            readers = readers[:2]
            writers = [(visitor(app, True), ("/write",), pause) for _ in range(2)]
            mixed = run([*readers, *writers], 2 * options.seconds)
            beside += [one for times in mixed[:2] for one in times]
    middle = {key: statistics.median(values) for key, values in rates.items()}
    rows = [
        [
            kind if kind == "none" else "sqlite, read and write in turns",
            *(
                f"{middle[kind, count] / middle[kind, 1]:.2f} ({middle[kind, count]:,.0f})"
                for count in THREADS
            ),
        ]
        for kind in apps
    ]
    one, other = report.percentile(quiet, 0.99), report.percentile(beside, 0.99)
    text = (
        "Ratio to one thread (requests a second), one process.\n\n"
        + report.markdown(["sessions", *(f"{count} threads" for count in THREADS)], rows)
        + f"\n\nReaders' 99th percentile beside paced writers: {other / one:.2f} times that without"
        f" ({other:.0f} and {one:.0f} us; medians {report.median(beside):.0f} and"
        f" {report.median(quiet):.0f})."
    )
    report.tell("threads", text, options.write)


if __name__ == "__main__":
    main()
