"""What the programs here share: the machine's name, percentiles, and putting a table or a plot into
the documentation."""

from __future__ import annotations

import datetime
import os
import platform
import sqlite3
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} CPUs; Linux {platform.release()}; CPython"
        f" {platform.python_version()}; Flask {version('flask')}, Werkzeug {version('werkzeug')};"
        f" SQLite {sqlite3.sqlite_version}; {datetime.date.today().isoformat()}"
    )


def command() -> str:
    """The command that is running, without the folders and addresses of this machine."""
    given = [Path(sys.argv[0]).stem, *sys.argv[1:]]
    plain = [part for part in given if "/" not in part]
    return f"python bench/{plain[0]}.py {' '.join(plain[1:])}".strip()


def median(values: list[int]) -> float:
    """In microseconds, of nanoseconds."""
    return statistics.median(values) / 1000


def percentile(values: list[int], part: float) -> float:
    """In microseconds, of nanoseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1000


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tell(name: str, text: str, write: bool) -> None:
    """Print the text, and with `write` put it into docs/performance.md between this program's two
    marks, with the machine, the date and the command."""
    text = f"{text.strip()}\n\n{machine()}; `{command()}`\n"
    print(text)
    if not write:
        return
    begin, end = f"<!-- bench/{name}.py begin -->", f"<!-- bench/{name}.py end -->"
    page = PAGE.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE.name} has no place for this: {begin} and {end}")
    head, _, rest = page.partition(begin)
    PAGE.write_text(f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}", encoding="utf-8")


def plot(name: str, draw: Any, write: bool) -> None:
    """docs/plots/NAME.svg, drawn by draw(axes) with Matplotlib; the same figures give the same
    file."""
    if not write:
        return
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cession"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    draw(axes)
    axes.grid(alpha=0.3)
    folder = PAGE.parent / "plots"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
