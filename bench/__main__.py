"""All measurements of docs/performance.md, one after the other, written into it; under 15 minutes.

    python bench [NAME...]

NAME: startup, codec, floors, request, sizes, stored, threads, throughput. BENCH_PLACE names the
folder for the stores of `stored` (default: a temporary one).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("startup", "codec", "floors", "request", "sizes", "stored", "threads", "throughput")


def main() -> int:
    names = sys.argv[1:] or PROGRAMS
    unknown = set(names) - set(PROGRAMS)
    if unknown:
        raise SystemExit(f"no such measurement: {', '.join(sorted(unknown))}; {__doc__}")
    for name in names:
        print(f"== {name}", flush=True)
        begin = time.monotonic()
        place = os.environ.get("BENCH_PLACE")
        more = ["--place", place] if place and name == "stored" else []
        done = subprocess.run(
            [sys.executable, HERE / f"{name}.py", *more, "--write"], cwd=HERE.parent, check=False
        )
        if done.returncode != 0:
            return done.returncode
        print(f"({time.monotonic() - begin:.0f} s)\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
