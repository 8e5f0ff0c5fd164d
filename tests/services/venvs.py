"""Virtualenvs with pinned packages that are not the package under test: its predecessors, and older
Flasks. Made once and kept in CESSION_CACHE (~/.cache/cession).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .base import Unavailable, clean_environment

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"

# name -> requirements file
VENVS = {
    "fs08": "fs08.txt",  # Flask-Session 0.8.0
    "fs08-cachelib0.9": "fs08-cachelib0.9.txt",
    "fs08-cachelib0.13": "fs08-cachelib0.13.txt",
    "fs2": "fs2.txt",  # Flask-Session2 1.3.1
    "flask23": "flask23.txt",
    "flask30": "flask30.txt",
    "flask312": "flask312.txt",
    "sqlalchemy20": "sqlalchemy20.txt",
    "elasticsearch8": "elasticsearch8.txt",
    "django": "django.txt",
    "gevent": "gevent.txt",  # gunicorn's gevent workers, redis-py
    "uwsgi": "uwsgi.txt",
    "pyright": "pyright.txt",  # the type checker
    "moto": "moto.txt",  # a server of DynamoDB
}


def cache_folder() -> Path:
    return Path(os.environ.get("CESSION_CACHE") or Path.home() / ".cache" / "cession")


def requirements_text(name: str) -> str:
    """The requirements with those that they include, comments dropped."""
    lines = []
    for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        included = re.fullmatch(r"-r\s+(\S+)", line)
        if included:
            lines.append(requirements_text(included.group(1)))
        elif line:
            lines.append(line + "\n")
    return "".join(lines)


def python(name: str, interpreter: str | None = None) -> str:
    """The Python executable of a virtualenv, made when there is none yet."""
    base = interpreter or sys.executable
    file = VENVS[name]
    text = requirements_text(file)
    tag = subprocess.run(
        [
            base,
            "-c",
            "import sys; print(sys.implementation.cache_tag, sys.version, sys.base_prefix)",
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    digest = hashlib.sha256((tag + text).encode()).hexdigest()[:12]
    venvs = cache_folder() / "venvs"
    venvs.mkdir(parents=True, exist_ok=True)
    folder = venvs / f"{name}-{tag.split()[0]}-{digest}"
    executable = folder / "bin" / "python"
    complete = folder / ".complete"
    if complete.exists():
        return str(executable)
    with (venvs / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return str(executable)
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [base, "-m", "venv", str(folder)],
            [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", str(REQUIREMENTS / file)],
        ):  # fmt: skip
            done = subprocess.run(
                command, env=clean_environment(), capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise Unavailable(
                    f"cannot make the virtualenv {name}: {done.stderr.strip()[-300:]}"
                )
        complete.touch()
    return str(executable)
