"""The native Redis driver: what it adds to the wire, and whole requests beside the predecessor.

    python -m tests.services run redis python bench/redis_native.py [--rounds 10] [--count 50]

Everything in one interleaved run, medians; client and server on one CPU, so nothing is hidden by
work that goes on at the same time. Ends with an error where a limit is not kept:

- one load takes at most 1.3 times a bare round trip of the same bytes, and 2 us;
- a whole request of Flask-Session 0.8 with redis-py takes so many times as long as ours: LIMITS;
- over redis-py, with SESSION_NATIVE = False, no kind of request is slower than there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import clib
import report
from request import Row, measure, venv

MODES = ("untouched", "read", "write", "new", "login")
LIMITS = {"untouched": 6.5, "read": 3.2, "write": 2.3, "login": 2.1}
LIMIT_REFRESH_OFF = 1.9
#: What two medians of the same thing may differ by on this machine.
NOISE = 1.03


def pin(port: int, cpu: int) -> None:
    """The server's threads to the CPU that the clients run on."""
    from redis import Redis

    process = Redis(port=port).info("server")["process_id"]
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cpu})


def round_trip(port: int, rounds: int, cpu: int) -> tuple[float, float]:
    """Microseconds of a bare round trip and of a load."""
    from redis import Redis

    program = clib.build("redis_roundtrip")
    key = "session:" + "b" * 43
    Redis(port=port).set(key, b"x" * 300, px=3_600_000)
    done = subprocess.run(
        [program, str(port), key, str(rounds)],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )  # fmt: skip
    bare, load = (int(number) / 1000 for number in done.stdout.split())
    return bare, load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=50, help="requests a round and mode")
    parser.add_argument("--cpu", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("BENCH_REDIS_URL", os.environ["REDIS_URL"])
    port = urlsplit(os.environ["BENCH_REDIS_URL"]).port or 6379
    pin(port, options.cpu)
    failures = []

    bare, load = round_trip(port, options.rounds * 5, options.cpu)
    print(f"bare round trip {bare:.1f} us, load {load:.1f} us ({load / bare:.2f})")
    if load > 1.3 * bare + 2:
        failures.append("load")

    old, off = venv("fs08"), ("--refresh-off",)
    native, native_off = Row("native", "redis-native"), Row("native off", "redis-native")
    adapter, adapter_off = Row("adapter", "redis"), Row("adapter off", "redis")
    theirs, theirs_off = Row("theirs", "redis", old), Row("theirs off", "redis", old)
    for row in (native_off, adapter_off, theirs_off):
        row.arguments = off
    rows = [native, adapter, theirs, native_off, adapter_off, theirs_off]
    with tempfile.TemporaryDirectory() as place:
        measure(rows, place, options.rounds, options.count, options.cpu, MODES)

    def compare(what: str, ours: Row, other: Row, limits: dict[str, float]) -> None:
        cells = []
        for mode in MODES:
            mine, his = report.median(ours.times[mode]), report.median(other.times[mode])
            cells.append(f"{his / mine:.2f} ({mine:.1f}, {his:.1f})")
            if his / mine < limits.get(mode, 0):
                failures.append(f"{what}: {mode}")
        lines.append([what, *cells])

    lines: list[list[str]] = []
    slower = dict.fromkeys(MODES, 1 / NOISE)
    compare("native", native, theirs, LIMITS)
    compare("native, refresh off", native_off, theirs_off, {"read": LIMIT_REFRESH_OFF})
    compare("over redis-py", adapter, theirs, slower)
    compare("over redis-py, refresh off", adapter_off, theirs_off, slower)
    print("Flask-Session 0.8 divided by ours (us of ours, of theirs):\n")
    print(report.markdown(["", *MODES], lines))
    for failure in failures:
        print(f"limit not kept: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
