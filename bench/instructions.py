"""Instructions a request, counted by callgrind: the same number on every machine and every day.

    python bench/instructions.py [--profile MODE] [--modes untouched,read,write,new]
    python bench/instructions.py --against COMMIT [--limit 3]

Counts whole in-process requests on sqlite and without a session, for the package as it is
installed. --profile lists the functions of one mode. --against builds the package of another
commit and of this working tree in build/bench, counts both in one run, and ends with an error where
a mode takes more than LIMIT percent more instructions than there. Needs valgrind.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from report import markdown

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
MODES = "untouched,read,write,new"
COUNT = 300

CODE = """
import ctypes, gc, sys
sys.path.insert(0, sys.argv[4])
import worker
kind, place, modes = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
callgrind = ctypes.CDLL(sys.argv[5])
count = int(sys.argv[6])
app = worker.make_app(kind, place)
gc.disable()
for mode in modes:
    step = worker.steps(app, mode, kind != "none")
    for _ in range(40):
        step()
    callgrind.begin()
    for _ in range(count):
        step()
    callgrind.finish(mode.encode())
"""


def library() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / "callgrind.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", HERE / "callgrind.c", "-o", made], check=True)
    return made


def count(kind: str, modes: str, site: Path | None = None) -> tuple[dict[str, int], dict[str, str]]:
    """Instructions a request by mode, and callgrind's file of each."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    folder = Path(tempfile.mkdtemp(dir=BUILD))
    place = folder / "place"
    place.mkdir()
    subprocess.run(
        [
            "valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--dump-instr=no",
            f"--callgrind-out-file={folder}/out", sys.executable, "-c", CODE,
            kind, place, modes, HERE, library(), str(COUNT),
        ],
        env=environment, check=True,
    )  # fmt: skip
    totals, files = {}, {}
    for path in sorted(folder.glob("out.*")):
        text = path.read_text(errors="replace")
        mode = re.search(r"^desc: Trigger: Client Request: (\w+)", text, re.MULTILINE)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
        if mode and total:
            totals[mode.group(1)] = int(total.group(1)) // COUNT
            files[mode.group(1)] = str(path)
    missing = set(modes.split(",")) - set(totals)
    if missing:
        raise SystemExit(f"callgrind counted nothing for {', '.join(sorted(missing))}")
    return totals, files


def build(commit: str | None) -> Path:
    """The package of a commit, or of the working tree, in a folder of its own."""
    name = commit or "tree"
    source, site = BUILD / f"source-{name}", BUILD / f"site-{name}"
    if commit is None:
        source = ROOT
        shutil.rmtree(site, ignore_errors=True)
    elif site.exists():
        return site
    else:
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "x"], cwd=source, input=archive.stdout, check=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps",
            "--no-index", "--target", site,
            f"--config-settings=build-dir={BUILD}/meson-{name}", ".",
        ],
        cwd=source,
        env={**os.environ, "PATH": path},
        check=True,
    )  # fmt: skip
    return site


def compare(commit: str, modes: str, limit: float) -> int:
    done = subprocess.run(
        ["git", "rev-parse", "--short", commit], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{commit} is no commit here")
    before, _ = count("sqlite", modes, build(done.stdout.strip()))
    after, _ = count("sqlite", modes, build(None))
    none = count("none", "untouched", BUILD / "site-tree")[0]["untouched"]
    rows, worst = [], 0.0
    for mode in modes.split(","):
        change = (after[mode] / before[mode] - 1) * 100
        worst = max(worst, change)
        rows.append(
            [mode, f"{change:+.2f} %", f"{before[mode]:,}", f"{after[mode]:,}",
             f"{after[mode] - none:+,}"]
        )  # fmt: skip
    head = ["mode", "change", done.stdout.strip(), "now", "now, less a request without a session"]
    print(f"Instructions a request on sqlite ({none:,} without a session).\n")
    print(markdown(head, rows))
    if worst > limit:
        print(f"\nA mode takes more than {limit:g} % more instructions than at {commit}.")
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modes", default=MODES)
    parser.add_argument("--profile", metavar="MODE")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--limit", type=float, default=3)
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed (Debian: apt-get install valgrind)")
    BUILD.mkdir(parents=True, exist_ok=True)
    if options.against:
        return compare(options.against, options.modes, options.limit)
    if options.profile:
        _, files = count("sqlite", options.profile)
        subprocess.run(["callgrind_annotate", "--threshold=95", files[options.profile]], check=True)
        return 0
    none = count("none", "untouched")[0]["untouched"]
    ours, _ = count("sqlite", options.modes)
    rows = [["none", "1.00", f"{none:,}", ""]]
    rows += [
        [f"sqlite, {mode}", f"{total / none:.2f}", f"{total:,}", f"{total - none:+,}"]
        for mode, total in ours.items()
    ]
    print(markdown(["request", "ratio", "instructions", "of the session"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
