"""Programs in C over the library that the package was built with."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"


@functools.cache
def build(name: str) -> Path:
    """Compile bench/NAME.c and link it with the library, once; the program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / name
    libraries = subprocess.run(
        ["pkg-config", "--libs", "hiredis", "libssl", "libcrypto", "sqlite3"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    library = ROOT / "build" / "package" / "src" / "libcession.a"
    subprocess.run(
        ["cc", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
         f"-I{ROOT / 'include'}", HERE / f"{name}.c", library, *libraries, "-pthread",
         "-o", program],
        check=True,
    )  # fmt: skip
    return program
