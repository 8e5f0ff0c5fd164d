"""What the package adds to the start and the memory of a worker process, on sqlite.

    python bench/startup.py [--rounds 15] [--write]

Processes in turns: Flask alone, with its one request answered; and the same with Session(app) on
sqlite and a stored session.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report

CODE = """
import sys, time
sys.path.insert(0, sys.argv[3])
import flask
import worker
flask_there, used = time.perf_counter(), time.process_time()
app = worker.make_app(sys.argv[1], sys.argv[2])
ready, used = time.perf_counter(), time.process_time() - used
worker.Visitor(app).visit("/new" if sys.argv[1] != "none" else "/untouched")
status = open("/proc/self/status").read()
memory = int(status.partition("VmRSS:")[2].split()[0])
print((ready - flask_there) * 1000, used * 1000, memory / 1024)
"""


def start(kind: str, place: str) -> list[float]:
    here = str(Path(__file__).resolve().parent)
    done = subprocess.run(
        [sys.executable, "-c", CODE, kind, place, here], capture_output=True, text=True, check=True
    )
    return [float(figure) for figure in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    taken: dict[str, list[list[float]]] = {"none": [], "sqlite": []}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(options.rounds):
            for kind in ("none", "sqlite"):
                taken[kind].append(start(kind, place))
    none, ours = (
        [statistics.median(column) for column in zip(*taken[kind], strict=True)]
        for kind in ("none", "sqlite")
    )
    text = (
        f"Importing the package and Session(app) take {ours[0] - none[0]:.1f} ms more than making"
        f" the application without ({none[0]:.1f} ms), of the CPU {ours[1] - none[1]:.1f} ms"
        f" ({none[1]:.1f} without). After its first request the process is {ours[2] - none[2]:.1f}"
        f" MiB larger ({none[2]:.1f} MiB without). Medians of {options.rounds} processes each, in"
        " turns."
    )
    report.tell("startup", text, options.write)


if __name__ == "__main__":
    main()
