"""Which lines of src/ and ext/ the tests reach, judged against those that are known to be reached
by none.

    coverage.py ROOT FOLDER... [--list]

FOLDERs are build folders that were compiled with -Db_coverage=true and whose tests have run. Every
line that is not reached must be named in tests/unreached.txt, and what is named there must exist
and not be reached; anything else is an error. An entry is known by file, function and text, so that
it stays right when lines move. --list prints the unreached lines that have no name.

The file: `= REASON` begins a group and says in plain words why no test reaches what follows;
`FILE FUNCTION: TEXT` is a line; several of one text in one function have an entry each. A reason
that begins with `sometimes` is of lines that some runs reach: they may be reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

#: file, function, text
Place = tuple[str, str, str]


def measured(root: Path, folders: list[Path]) -> list[dict[str, object]]:
    """The files of gcovr's JSON report over all folders together."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [
            *(sys.executable, "-m", "gcovr", "--root", str(root)),
            *("--filter", f"{root}/(src|ext)/"),
            "--merge-mode-functions=merge-use-line-0",
            # A process that is killed while it writes leaves a count that gcov doubts.
            "--gcov-ignore-parse-errors=all",
            *("--json", str(report)),
            *map(str, folders),
        ]
        subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
        files: list[dict[str, object]] = json.loads(report.read_text())["files"]
    return files


def lines_of(
    root: Path, files: list[dict[str, object]]
) -> dict[str, dict[int, tuple[Place, bool]]]:
    """file -> line -> (its place, whether it was reached)"""
    found: dict[str, dict[int, tuple[Place, bool]]] = {}
    for file in files:
        name = str(file["file"])
        text = (root / name).read_text().splitlines()
        lines: dict[int, tuple[Place, bool]] = {}
        for line in file["lines"]:  # type: ignore[attr-defined]
            number = line["line_number"]
            place = (name, line.get("function_name") or "-", text[number - 1].strip())
            reached = line["count"] > 0 or (number in lines and lines[number][1])
            lines[number] = (place, reached)
        found[name] = lines
    return found


def named(path: Path) -> tuple[dict[Place, list[str]], list[str]]:
    """The names, each with the reasons of its entries, and what is wrong with the file."""
    names: dict[Place, list[str]] = defaultdict(list)
    faults = []
    reason = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("= "):
            reason = line[2:].strip()
            continue
        where, colon, text = line.partition(": ")
        file, _, function = where.partition(" ")
        if reason and colon and function:
            names[file, function, text.strip()].append(reason)
        else:
            faults.append(f"{path.name}:{number}: not `FILE FUNCTION: TEXT` under a reason")
    return names, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--list", action="store_true", help="only the lines without a name")
    options = parser.parse_args()
    root = options.root.resolve()
    found = lines_of(root, measured(root, [folder.resolve() for folder in options.folders]))
    names, faults = named(root / "tests" / "unreached.txt")

    missing: dict[Place, list[int]] = defaultdict(list)
    rows = []
    for name in sorted(found):
        lines = found[name]
        unreached = [(number, place) for number, (place, reached) in lines.items() if not reached]
        for number, place in sorted(unreached):
            missing[place].append(number)
        places = Counter(place for _, place in unreached)
        known = sum(min(count, len(names.get(place, ()))) for place, count in places.items())
        rows.append((name, len(lines), len(lines) - len(unreached), known))
    existing = {place for lines in found.values() for place, _ in lines.values()}
    for place, numbers in missing.items():
        more = len(numbers) - len(names.get(place, ()))
        if more > 0:
            where = f"{place[0]}:{','.join(map(str, numbers))}"
            faults.append(f"{where}: not reached, and {more} not named: {place[2]}")
            if options.list:
                print("\n".join([f"{place[0]} {place[1]}: {place[2]}"] * more))
    for place, reasons in names.items():
        certain = sum(not reason.startswith("sometimes") for reason in reasons)
        text = f"{place[0]} {place[1]}: {place[2]}"
        if place not in existing:
            faults.append(f"named, but there is no such line: {text}")
        elif certain > len(missing.get(place, ())):
            faults.append(f"named, but reached: {text}")
    if options.list:
        return 0

    width = max(len(row[0]) for row in rows)
    print(f"{'file':<{width}}  lines  reached  named  neither")
    rows.append(("all", *(sum(row[i] for row in rows) for i in (1, 2, 3))))  # type: ignore[arg-type]
    for name, lines_here, reached_here, known in rows:
        neither = lines_here - reached_here - known
        print(f"{name:<{width}}  {lines_here:5}  {reached_here:7}  {known:5}  {neither:7}")
    total = rows[-1]
    print(f"{100 * total[2] / total[1]:.1f} % of the lines are reached")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
