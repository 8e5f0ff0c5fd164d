"""Servers that are fetched or built here: made once and kept in CESSION_CACHE (see venvs.py)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .base import Unavailable, clean_environment, require_command
from .venvs import cache_folder

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>server</artifactId><version>1</version>
<dependencies>{}</dependencies></project>
"""
_DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def built(name: str, made_from: str, make: Callable[[Path], None]) -> Path:
    """The folder that make(folder) filled; made again only when the text `made_from` (versions,
    sources) changes. It appears whole or not at all."""
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    servers = cache_folder() / "servers"
    servers.mkdir(parents=True, exist_ok=True)
    folder = servers / f"{name}-{digest}"
    if folder.exists():
        return folder
    with (servers / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            temporary = Path(tempfile.mkdtemp(dir=servers))
            try:
                make(temporary)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def run(command: Sequence[str], folder: Path, typed: str = "") -> None:
    """Run a command of a build, which reads what is typed; Unavailable with the end of what it
    printed when it fails."""
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), input=typed, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        told = (done.stdout + done.stderr).strip()[-300:]
        raise Unavailable(f"{Path(command[0]).name} failed: {told}")


#: Nothing runs long enough here for the better compiler, nor has garbage for several threads.
JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def java_program(name: str, version: int = 17) -> str:
    """The path of a program (java, javac) of the oldest JDK of at least this version; where
    there is no JDK at all root installs one, else Unavailable."""
    require_command("javac", f"openjdk-{version}-jdk-headless")
    found = _jdk(version)
    if found is None:
        raise Unavailable(f"there is no JDK of version {version} or newer")
    return str(found / "bin" / name)


def _jdk(version: int) -> Path | None:
    homes = [path for path in Path("/usr/lib/jvm").glob("*") if not path.is_symlink()]
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    found = []
    for home in homes:
        if (home / "bin" / "javac").exists():
            told = (home / "release").read_text() if (home / "release").exists() else ""
            number = re.search(r'JAVA_VERSION="(\d+)', told)
            if number and int(number[1]) >= version:
                found.append((int(number[1]), home))
    return min(found)[1] if found else None


def fetch_jars(folder: Path, *artifacts: str) -> None:
    """Artifacts (group:artifact:version) and all that they need, into folder/lib."""
    maven = require_command("mvn", "maven")
    dependencies = "".join(_DEPENDENCY.format(*name.split(":")) for name in artifacts)
    (folder / "pom.xml").write_text(_POM.format(dependencies))
    run(
        [
            maven,
            "-B",
            "-q",
            f"{_PLUGIN}:copy-dependencies",
            "-DincludeScope=runtime",
            "-DoutputDirectory=lib",
        ],
        folder,
    )


def fetch_artifact(folder: Path, artifact: str) -> Path:
    """One artifact alone (group:artifact:version:type), into folder; its file."""
    maven = require_command("mvn", "maven")
    before = set(folder.iterdir())
    run(
        [maven, "-B", "-q", f"{_PLUGIN}:copy", f"-Dartifact={artifact}", "-DoutputDirectory=."],
        folder,
    )
    [fetched] = set(folder.iterdir()) - before
    return fetched
