"""The command line: see the package's own text."""

from __future__ import annotations

import argparse
import shlex
import sys

from . import SERVICES, Services, Unavailable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start servers; prints NAME_URL exports")
    start.add_argument("names", nargs="+", metavar="NAME", choices=[*SERVICES, "all"])
    stop = commands.add_parser("stop", help="end what start started")
    stop.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("status", help="what is up")
    arguments = parser.parse_args()

    services = Services.shared()
    if arguments.command == "start":
        names = list(SERVICES) if "all" in arguments.names else arguments.names
        for name in names:
            try:
                service = services.start(SERVICES[name])
            except Unavailable as reason:
                print(f"{name}: NOT RUN: {reason}", file=sys.stderr)
                return 3
            for variable, value in sorted(service.exports().items()):
                print(f"export {variable}={shlex.quote(value)}")
    elif arguments.command == "stop":
        for name in arguments.names or list(SERVICES):
            services.stop(SERVICES[name])
    else:
        for name, kind in SERVICES.items():
            running = services.find(kind)
            urls = " ".join(running.exports().values()) if running else "not running"
            print(f"{name}: {urls}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
