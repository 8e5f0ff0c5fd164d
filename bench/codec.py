"""Encoding and decoding beside msgspec's, which is C as well: the same bytes, in turns.

python bench/codec.py [--rounds 200] [--write]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import msgspec
import report
import worker
from flask_session import _core


def time_of(call: Callable[[Any], Any], argument: Any, count: int) -> int:
    begin = time.perf_counter_ns()
    for _ in range(count):
        call(argument)
    return (time.perf_counter_ns() - begin) // count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    rows = []
    for name, data in (
        ("300 bytes, flat", worker.content(300)),
        ("10 kB, nested", worker.nested(10_000)),
        ("100 kB, nested", worker.nested(100_000)),
    ):
        value = _core.encode(data)
        assert value == msgspec.msgpack.encode(data)
        count = max(1, 20_000 // len(value))
        calls: dict[str, tuple[Callable[[Any], Any], Any]] = {
            "decode": (_core.decode, value),
            "msgspec decode": (msgspec.msgpack.decode, value),
            "encode": (_core.encode, data),
            "msgspec encode": (msgspec.msgpack.encode, data),
        }
        times: dict[str, list[int]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for call, (function, argument) in calls.items():
                times[call].append(time_of(function, argument, count))
        cells = [
            f"{report.median(times[mode]) / report.median(times[f'msgspec {mode}']):.2f}"
            f" ({report.median(times[mode]):.2f}; {report.median(times[f'msgspec {mode}']):.2f})"
            for mode in ("decode", "encode")
        ]
        rows.append([f"{name} ({len(value):,})", *cells])
    text = (
        f"Ratio to msgspec {msgspec.__version__} (us ours; us msgspec's), medians of"
        f" {options.rounds} rounds.\n\n"
        + report.markdown(["session (bytes stored)", "decode", "encode"], rows)
    )
    report.tell("codec", text, options.write)


if __name__ == "__main__":
    main()
