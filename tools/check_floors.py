"""What the compiler does not check about the tree.

- An #include looks down only: base < session, store < flow, drivers < ext; two on one floor do not
  include each other; Python.h belongs to ext/ and its tests, a client library to its driver.
- Every C file of src/ includes base/banned.h, and includes it last; the library does not print.
- Every public header compiles alone, as C11 and as C++17.
- python/meson.build and ext/meson.build name every file there is.
- Text: no tabs, no trailing blanks, no conflict markers, no notes to self, no paths of one machine.

Prints every finding and exits 1 when there is one. An argument names another tree to check.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent.parent).resolve()

# Floor of a folder -> the folders that its files may include from, besides their own and the
# public headers.
ALLOWED: dict[str, set[str]] = {
    "include/cession": set(),
    "src/base": set(),
    "src/session": {"base"},
    "src/store": {"base"},
    "src/flow": {"base", "session", "store"},
    "src/drivers": {"base", "session", "store"},
    "ext": {"base", "session", "store", "flow", "drivers"},
}

# A system header -> the folders (or files) that may include it.
OWNED_HEADERS: dict[str, tuple[str, ...]] = {
    "Python.h": ("ext/", "tests/python/"),
    "sqlite3.h": ("src/drivers/sqlite", "tests/"),
    "hiredis/": ("src/drivers/redis_reply",),
    "openssl/": ("src/base/", "src/session/", "src/drivers/", "ext/", "tests/"),
    "syslog.h": (),
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)
PRINTS = re.compile(r"\b(?:v?f?printf|f?puts|f?putc|putchar|perror|v?dprintf|v?syslog)\s*\(")

TEXT_SUFFIXES = {
    ".build", ".c", ".cfg", ".css", ".h", ".html", ".md", ".options", ".py", ".pyi", ".sh",
    ".toml", ".txt", ".yml", ".yaml",
}  # fmt: skip
TEXT_NAMES = {"Makefile", "run", ".gitignore", ".clang-format", ".editorconfig"}
SKIPPED_FOLDERS = {
    ".git", ".venv", "build", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    ".hypothesis", "__pycache__", "corpus",
}  # fmt: skip
# Written so that this file does not find itself.
NOTES = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b")
MACHINE = re.compile(r"(?<![\w.])/(?:wor[k]|roo[t]|hom[e]/\w+|op[t]/v)(?:/|\b)")
CONFLICT = re.compile(r"^(?:<{7}|>{7}|={7})(?: |$)", re.MULTILINE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def sources(folder: str, *suffixes: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes)


def check_includes() -> Iterator[str]:
    for folder, below in ALLOWED.items():
        own = folder.removeprefix("src/") if folder.startswith("src/") else ""
        for path in sources(folder, ".c", ".h"):
            text = path.read_text(encoding="utf-8")
            for match in INCLUDE.finditer(text):
                quote, name = match.groups()
                where = f"{relative(path)}:{line_of(text, match.start())}"
                if quote == "<":
                    continue
                if name.startswith("cession/"):
                    continue
                head, _, tail = name.partition("/")
                if folder == "include/cession":
                    yield f"{where}: a public header includes only public headers, not {name}"
                elif not tail:
                    if not (path.parent / name).exists():
                        yield f"{where}: {name} is not in this folder"
                elif head != own and head not in below:
                    yield f"{where}: {folder} may not include {name} (it looks up or sideways)"
    for folder in ("include", "src", "ext", "tests"):
        for path in sources(folder, ".c", ".h"):
            text = path.read_text(encoding="utf-8")
            for match in INCLUDE.finditer(text):
                for header, owners in OWNED_HEADERS.items():
                    found = match.group(2)
                    hit = found.startswith(header) if header.endswith("/") else found == header
                    if hit and not relative(path).startswith(owners or ("/",)):
                        where = f"{relative(path)}:{line_of(text, match.start())}"
                        yield f"{where}: {found} is not included here"


def check_banned() -> Iterator[str]:
    for path in sources("src", ".c"):
        text = path.read_text(encoding="utf-8")
        includes = [match.group(2) for match in INCLUDE.finditer(text)]
        if not includes or includes[-1] != "base/banned.h":
            yield f'{relative(path)}: the last #include must be "base/banned.h"'
        code = COMMENT_OR_STRING.sub(lambda m: " " * len(m.group().split("\n", 1)[0]), text)
        for match in PRINTS.finditer(code):
            yield f"{relative(path)}: {match.group().strip()}...) - the library does not print"


def check_headers_compile() -> Iterator[str]:
    headers = sources("include", ".h")
    variants = [("gcc", ["-x", "c", "-std=c11"]), ("g++", ["-x", "c++", "-std=c++17"])]
    for compiler, _ in variants:
        if shutil.which(compiler) is None:
            yield f"{compiler} is missing: the public headers were not compiled with it"
            return

    def compile_one(job: tuple[Path, str, list[str]]) -> str | None:
        header, compiler, flags = job
        command = [
            compiler, *flags, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only",
            f"-I{ROOT / 'include'}", "-include", str(header), "-",
        ]  # fmt: skip
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        return f"{relative(header)} does not compile alone with {compiler}:\n{done.stderr.strip()}"

    jobs = [(header, compiler, flags) for header in headers for compiler, flags in variants]
    with ThreadPoolExecutor(2) as pool:
        yield from filter(None, pool.map(compile_one, jobs))


def check_build_lists() -> Iterator[str]:
    listed = (ROOT / "python/meson.build").read_text(encoding="utf-8")
    package = ROOT / "python/flask_session"
    for path in sorted(package.rglob("*")):
        if path.suffix in {".py", ".pyi"} or path.name == "py.typed":
            name = path.relative_to(package).as_posix()
            if f"'{name}'" not in listed:
                yield f"python/meson.build does not install {relative(path)}"
    listed = (ROOT / "ext/meson.build").read_text(encoding="utf-8")
    for path in sources("ext", ".c"):
        if f"'{path.stem}'" not in listed and f"'{path.name}'" not in listed:
            yield f"ext/meson.build does not build {relative(path)}"
    for folder in ("base", "session", "store", "flow", "drivers"):
        listed = (ROOT / "src" / folder / "meson.build").read_text(encoding="utf-8")
        for path in sources(f"src/{folder}", ".c"):
            if f"'{path.name}'" not in listed:
                yield f"src/{folder}/meson.build does not build {relative(path)}"


def text_files() -> Iterator[Path]:
    pending = [ROOT]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.is_symlink():
                continue
            if path.is_dir():
                if path.name not in SKIPPED_FOLDERS and not path.name.startswith("build"):
                    pending.append(path)
            elif path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES:
                yield path


def check_text() -> Iterator[str]:
    for path in text_files():
        name = relative(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield f"{name}: not UTF-8"
            continue
        if "\r" in text:
            yield f"{name}: carriage return"
        if text and not text.endswith("\n"):
            yield f"{name}: no newline at the end"
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{name}:{number}"
            if line != line.rstrip():
                yield f"{where}: blank at the end of the line"
            if "\t" in line and path.name != "Makefile":
                yield f"{where}: tab"
            if NOTES.search(line):
                yield f"{where}: a note to self"
            if MACHINE.search(line):
                yield f"{where}: a path of one machine"
        match = CONFLICT.search(text)
        if match and path.suffix != ".md":
            yield f"{name}:{line_of(text, match.start())}: conflict marker"


def main() -> int:
    checks = (
        check_includes,
        check_banned,
        check_headers_compile,
        check_build_lists,
        check_text,
    )
    findings = [finding for check in checks for finding in check()]
    for finding in findings:
        print(finding)
    if findings:
        print(f"check_floors: {len(findings)} finding(s)")
        return 1
    print(f"check_floors: {len(checks)} checks, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
