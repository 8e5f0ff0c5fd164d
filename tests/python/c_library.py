"""The C library as `make install` leaves it, and programs built over it with what pkg-config says
and a compiler."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services.base import clean_environment

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = "-fsanitize=address,undefined"
MESON = {
    "plain": "-Dbuildtype=debug --werror",
    "sanitized": "-Dbuildtype=debugoptimized --werror -Db_lundef=false"
    " -Db_sanitize=address,undefined",
}
WARNINGS = [
    "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-Wconversion", "-Wundef",
    "-Wcast-qual", "-Wpointer-arith", "-Wwrite-strings", "-Wdouble-promotion", "-Wformat=2",
]  # fmt: skip


@dataclass
class Installed:
    """A prefix with the library in it."""

    prefix: Path
    kind: str

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """For pkg-config and for the programs: the prefix is none that the system knows."""
        found = {
            "PKG_CONFIG_PATH": str(self.prefix / "lib/pkgconfig"),
            "LD_LIBRARY_PATH": str(self.prefix / "lib"),
            "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
            "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
        }
        return clean_environment({**found, **(extra or {})})

    def pkg_config(self, *options: str) -> str:
        return run(["pkg-config", *options, "cession"], env=self.environment()).strip()

    def build(
        self, output: Path, *sources: Path, compiler: str = "cc", static: bool = False
    ) -> Path:
        """Compile and link a program."""
        flags = shlex.split(self.pkg_config("--cflags", "--libs", *(["--static"] * static)))
        options = ["-std=c11", "-g", *WARNINGS]
        if self.kind == "sanitized":
            options += [SANITIZE, "-fno-sanitize-recover=all"]
        run([compiler, *options, "-o", str(output), *map(str, sources), *flags])
        return output


def run(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command,
        env=env or clean_environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install(kind: str, prefix: Path) -> Installed:
    """`make install` with the tools of this checkout. Test processes take turns: the build folder
    is one, and the second finds it up to date."""
    build = ROOT / "build" / f"test-install-{kind}"
    build.parent.mkdir(exist_ok=True)
    environment = {
        name: value
        for name, value in clean_environment().items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR")
    }
    with build.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = [f"PREFIX={prefix}", f"BUILD={build}", f"MESON_SETUP={MESON[kind]}"]
        run(["make", "install", *arguments], env=environment)
    return Installed(prefix, kind)


def has(command: str) -> bool:
    return shutil.which(command, path=os.environ.get("PATH")) is not None
