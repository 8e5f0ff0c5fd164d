"""The command line: see the package's own text."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from . import SERVICES, Services, Unavailable, venvs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start servers; prints NAME_URL exports")
    start.add_argument("names", nargs="+", metavar="NAME", choices=[*SERVICES, "all"])
    stop = commands.add_parser("stop", help="end what start started")
    stop.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("status", help="what is up")
    run = commands.add_parser(
        "run", help="start servers, run a command with NAME_URL set, end them"
    )
    run.add_argument("names", help="names, separated by commas")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    venv = commands.add_parser("venv", help="print the Python of a pinned virtualenv")
    venv.add_argument("name", choices=venvs.VENVS)
    arguments = parser.parse_args()

    if arguments.command == "venv":
        print(venvs.python(arguments.name))
        return 0
    if arguments.command == "run":
        return run_with(arguments.names.split(","), arguments.arguments)
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


def run_with(names: list[str], command: list[str]) -> int:
    services = Services.private()
    try:
        environment = dict(os.environ)
        for name in names:
            environment.update(services.start(SERVICES[name]).exports())
        return subprocess.run(command, env=environment, check=False).returncode
    except Unavailable as reason:
        print(f"NOT RUN: {reason}", file=sys.stderr)
        return 3
    finally:
        services.close()


if __name__ == "__main__":
    sys.exit(main())
