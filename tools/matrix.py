"""The Python tests on every CPython that the package supports, and with every Flask line.

    .venv/bin/python tools/matrix.py [--all] [PYTEST ARGUMENT...]

Every CPython with the newest Flask, and every Flask with one CPython; --all: every pair. Takes the
interpreters that are on this machine (python3.10 ... on PATH, or pyenv's), makes a virtualenv for
each pair in build/matrix, and prints a table. An interpreter that is missing is a row that says NOT
RUN (with CI=true an error).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
FLASKS = {"flask": "3.1 latest", "flask312": "3.1.2", "flask30": "3.0", "flask23": "2.3"}
NEWEST_FLASK = "flask"
PYTHON_OF_EVERY_FLASK = "3.11"


def find_interpreter(version: str) -> str | None:
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in candidates:
        if candidate is None:
            continue
        code = "import sys, ensurepip; print(*sys.version_info[:2], sep='.')"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def run(*command: str | Path, log: Path, env: dict[str, str] | None = None) -> bool:
    with log.open("ab") as output:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode == 0


def make_venv(interpreter: str, folder: Path, requirements: list[str], log: Path) -> bool:
    python = folder / "bin" / "python"
    if not python.exists() and not run(interpreter, "-m", "venv", folder, log=log):
        return False
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for name in requirements:
        pip += ["-r", f"requirements/{name}.txt"]
    return run(*pip, log=log)


def build_wheel(version: str, interpreter: str, log: Path) -> Path | None:
    venv = WORK / f"build-{version}"
    if not make_venv(interpreter, venv, ["build"], log):
        return None
    wheels = WORK / f"wheel-{version}"
    shutil.rmtree(wheels, ignore_errors=True)
    done = run(
        venv / "bin" / "python", "-m", "pip", "wheel", "--quiet", "--no-build-isolation",
        "--no-deps", "--no-index", "--wheel-dir", wheels,
        f"--config-settings=build-dir={WORK / f'meson-{version}'}", ".",
        log=log,
        env={"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    return next(wheels.glob("*.whl"), None) if done else None


def run_one(version: str, interpreter: str, wheel: Path, flask: str, arguments: list[str]) -> str:
    log = WORK / f"{version}-{flask}.log"
    log.unlink(missing_ok=True)
    venv = WORK / f"{version}-{flask}"
    python = venv / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    ready = make_venv(interpreter, venv, [flask, "test"], log) and run(
        *pip, "--force-reinstall", wheel, log=log
    )
    if not ready:
        return f"FAILED to install, see {log.relative_to(ROOT)}"
    passed = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, log=log)
    last = log.read_text(errors="replace").strip().splitlines()[-1].strip("= ")
    return last if passed else f"FAILED: {last}, see {log.relative_to(ROOT)}"


def main() -> int:
    arguments = sys.argv[1:]
    every_pair = "--all" in arguments
    arguments = [one for one in arguments if one != "--all"]
    # Types are checked once, by the tools of .venv.
    arguments = arguments or [
        *("-m", "not slow", "-n", str(os.cpu_count()), "--dist", "worksteal"),
        "--ignore=tests/python/test_typing.py",
    ]
    WORK.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    for version in PYTHONS:
        interpreter = find_interpreter(version)
        if interpreter is None:
            rows.append((version, "-", "NOT RUN: no such interpreter on this machine"))
            continue
        log = WORK / f"{version}.log"
        log.unlink(missing_ok=True)
        wheel = build_wheel(version, interpreter, log)
        for flask, name in FLASKS.items():
            if not every_pair and flask != NEWEST_FLASK and version != PYTHON_OF_EVERY_FLASK:
                continue
            if wheel is None:
                result = f"FAILED to build, see {log.relative_to(ROOT)}"
            else:
                result = run_one(version, interpreter, wheel, flask, arguments)
            rows.append((version, name, result))
            print(f"CPython {version:5} Flask {name:11} {result}", flush=True)
    print()
    for version, name, result in rows:
        print(f"CPython {version:5} Flask {name:11} {result}")
    bad = ("FAILED", "NOT RUN") if os.environ.get("CI") else ("FAILED",)
    return any(result.startswith(bad) for _, _, result in rows)


if __name__ == "__main__":
    sys.exit(main())
