"""How long a read and a write take by the size of the session, 100 bytes to 1 MiB.

    python bench/sizes.py [--rounds 6] [--write]

Whole in-process requests as in request.py: sqlite and filesystem, beside Flask-Session 0.8 on
files. The size is what is stored; the view reads or changes one key.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import report
from request import Row, measure, venv

SIZES = (100, 1_000, 10_000, 100_000, 1_048_576)
MODES = ("untouched", "read", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    kinds = {
        "sqlite": ("sqlite", None),
        "filesystem": ("filesystem", None),
        "Flask-Session 0.8 filesystem": ("filesystem", venv("fs08")),
    }
    rows = [Row("none", "none"), Row("none again", "none")]
    for name, (kind, python) in kinds.items():
        for size in SIZES:
            row = Row(f"{name} {size}", kind, arguments=("--size", str(size)))
            if python:
                row.python = python
            rows.append(row)
    with tempfile.TemporaryDirectory() as place:
        measure(rows, place, options.rounds, options.count, options.cpu, MODES)
    named = {row.name: row for row in rows}
    none = report.median(named["none"].times["untouched"])

    def ratio(name: str, size: int, mode: str) -> float:
        return report.median(named[f"{name} {size}"].times[mode]) / none

    lines = [
        [name, mode, *(f"{ratio(name, size, mode):.2f}" for size in SIZES)]
        for name in kinds
        for mode in ("read", "write")
    ]
    head = ["sessions", "mode", *(f"{size:,} B" for size in SIZES)]
    text = (
        f"Ratio to a request without a session ({none:.1f} us), medians of {options.rounds}"
        f" interleaved rounds of {options.count} requests.\n\n{report.markdown(head, lines)}"
    )
    report.tell("sizes", text, options.write)

    def draw(axes: Any) -> None:
        for name in kinds:
            for mode, style in (("read", "-"), ("write", "--")):
                values = [ratio(name, size, mode) for size in SIZES]
                axes.plot(SIZES, values, style, marker="o", label=f"{name}, {mode}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("bytes of the session")
        axes.set_ylabel("time of a request; without a session = 1")
        axes.legend(fontsize=8)

    report.plot("sizes", draw, options.write)


if __name__ == "__main__":
    main()
