"""Whole requests, in process: what a session costs beside the same application without one.

    python bench/request.py [--rounds 30] [--count 100] [--kinds none,cookie,sqlite]
                            [--predecessor PYTHON] [--redis URL] [--write docs/performance.md]

Every kind is an application in a process of its own, all pinned to one CPU; the rounds are
interleaved, so drift of the machine meets all alike. "none" is the same application with the same
Cookie header and no SECRET_KEY. Figures are microseconds a request: median, 99th percentile, and
first the ratio to "none". "none" runs twice: the second row shows the noise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODES = ("untouched", "read", "write", "new", "nested", "login", "logout")
COOKIE = "session=" + "A" * 43
BEGIN, END = "<!-- bench/request.py begin -->", "<!-- bench/request.py end -->"


class Worker:
    """An application under test."""

    def __init__(self, name: str, python: str, kind: str, place: str, refresh: str, cpu: int):
        self.name = name
        self.times: dict[str, list[int]] = {}
        environment = dict(os.environ)
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)  # its own packages only
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), kind, place, refresh, COOKIE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        self.receive()

    def receive(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, mode: str, count: int) -> list[int]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"mode": mode, "count": count}) + "\n")
        self.process.stdin.flush()
        answer = self.receive()
        assert isinstance(answer, list)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def percentile(values: list[int], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1000


def table(workers: list[Worker]) -> str:
    base = workers[0]
    reference = statistics.median(base.times["untouched"])
    lines = [
        "| sessions | " + " | ".join(MODES) + " |",
        "|---|" + "---|" * len(MODES),
    ]
    for worker in workers:
        cells = []
        for mode in MODES:
            times = worker.times.get(mode)
            if not times:
                cells.append("-")
                continue
            median = statistics.median(times)
            cells.append(
                f"{median / reference:.2f} ({median / 1000:.1f}; {percentile(times, 0.99):.0f})"
            )
        lines.append(f"| {worker.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    import sqlite3
    from importlib.metadata import version

    return (
        f"{model}, {os.cpu_count()} CPUs; Linux {platform.release()}; CPython"
        f" {platform.python_version()}; Flask {version('flask')}, Werkzeug {version('werkzeug')};"
        f" SQLite {sqlite3.sqlite_version}; {datetime.date.today().isoformat()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", type=int, default=100, help="requests a round and mode")
    parser.add_argument("--kinds", default="none,cookie,memory,sqlite,filesystem")
    parser.add_argument("--predecessor", help="Python of a virtualenv with Flask-Session 0.8")
    parser.add_argument("--redis", help="redis://... for the redis rows")
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--place", help="folder for the stores (default: a temporary one)")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    options = parser.parse_args()
    if options.redis:
        os.environ["BENCH_REDIS_URL"] = options.redis

    with tempfile.TemporaryDirectory(dir=options.place) as place:
        plan = [(kind, sys.executable, kind, "refresh") for kind in options.kinds.split(",")]
        plan.insert(1, ("none again", sys.executable, "none", "refresh"))
        if options.redis:
            plan.append(("redis (redis-py)", sys.executable, "redis", "refresh"))
        if options.predecessor:
            kinds = ["filesystem"] + (["redis"] if options.redis else [])
            for kind in kinds:
                plan.append((f"Flask-Session 0.8 {kind}", options.predecessor, kind, "refresh"))
                plan.append(
                    (f"the same, refresh off: {kind}", options.predecessor, kind, "no-refresh")
                )
        workers = []
        for index, (name, python, kind, refresh) in enumerate(plan):
            folder = os.path.join(place, str(index))
            os.mkdir(folder)
            workers.append(Worker(name, python, kind, folder, refresh, options.cpu))
        for round_number in range(-2, options.rounds):
            for mode in MODES:
                for worker in workers:
                    if worker.name.startswith("none") and mode != "untouched":
                        continue
                    times = worker.run(mode, options.count)
                    if round_number >= 0:  # the first rounds warm caches and files
                        worker.times.setdefault(mode, []).extend(times)
        for worker in workers:
            worker.close()

    command = "python bench/request.py " + " ".join(
        argument if "/" not in argument else os.path.basename(argument) for argument in sys.argv[1:]
    )
    text = (
        f"Ratio to no session (median us; 99th percentile us), {options.rounds} interleaved rounds"
        f" of {options.count} requests.\n\n{table(workers)}\n\n{machine()}; `{command.strip()}`\n"
    )
    print(text)
    if options.write:
        page = options.write.read_text()
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        options.write.write_text(f"{head}{BEGIN}\n{text}{END}{tail}")


if __name__ == "__main__":
    main()
