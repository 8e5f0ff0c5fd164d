"""The floors: what the embedded stores and the Redis driver cost in C, without Python, beside a
bare read of the same store and a bare round trip.

    python bench/floors.py [--rounds 5] [--count 4000] [--write]

The client runs on one CPU; rounds are interleaved. Redis is there when BENCH_REDIS_URL is set; its
server is put on the same CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from urllib.parse import urlsplit

import clib
import redis_native
import report
from request import SHARED_MEMORY

OPERATIONS = ("bare", "load", "create", "replace", "remove")


def measure(kind: str, place: str | None, count: int, cpu: int) -> dict[str, int]:
    program = clib.build("floors")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        done = subprocess.run(
            [program, kind, folder, str(count)], capture_output=True, text=True, check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )  # fmt: skip
    return {name: int(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000, help="operations of a kind a round")
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    places = {"": None, **({"tmpfs: ": str(SHARED_MEMORY)} if SHARED_MEMORY.is_dir() else {})}
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(options.rounds):
        for before, place in places.items():
            for kind in ("sqlite", "filesystem"):
                for name, value in measure(kind, place, options.count, options.cpu).items():
                    found[before + kind][name].append(value)
    rows = []
    for what, times in found.items():
        medians = {name: statistics.median(times[name]) for name in OPERATIONS}
        cells = [
            f"{medians[n] / medians['bare']:.1f} ({medians[n] / 1000:.1f})" for n in OPERATIONS
        ]
        rows.append([what, *cells])
    if "BENCH_REDIS_URL" in os.environ:
        port = urlsplit(os.environ["BENCH_REDIS_URL"]).port or 6379
        redis_native.pin(port, options.cpu)
        bare, load = redis_native.round_trip(port, options.rounds * 5, options.cpu)
        rows.append(["redis", f"1.0 ({bare:.1f})", f"{load / bare:.1f} ({load:.1f})", *["-"] * 3])
    text = (
        "Ratio to the bare read (median us), in C, without Python: sessions of 300 bytes. *bare* is"
        " one prepared SELECT, a file opened, read and closed, or a round trip of the same"
        f" bytes.\n\n{report.markdown(['store', *OPERATIONS], rows)}"
    )
    report.tell("floors", text, options.write)


if __name__ == "__main__":
    main()
