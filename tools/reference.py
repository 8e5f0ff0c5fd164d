"""Writes docs/reference.md from the public headers, which are the only place where it is written.

tools/reference.py            write it
tools/reference.py --check    exit 1 when the file is not what the headers say
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "include" / "cession"
OUTPUT = ROOT / "docs" / "reference.md"

INTRO = """\
# Reference of the C library

Made from the headers by `tools/reference.py`; [c.md](c.md) says how to begin. `#include
<cession/cession.h>` includes all of them. Every function whose name begins with `cession_` is
exported, nothing else is. Results of type `int` are a `cession_status` (error.h) unless said
otherwise, and are to be looked at.
"""

# From a program's first steps to what it hardly ever needs.
ORDER = [
    "cession", "request", "item", "store", "session", "cookie", "codec", "buf", "error", "alloc",
]  # fmt: skip

SECTION = re.compile(r"^/\* -{4} (.*?) -+ \*/$", re.DOTALL)
CPLUSPLUS = re.compile(r"^#ifdef __cplusplus\n(?:extern \"C\" \{|\})\n#endif\n", re.MULTILINE)
FUNCTION = re.compile(r"\b(cession_\w+)\s*\(")


def chunks(text: str) -> Iterator[str]:
    """The comments and declarations of a header at its top level, in their order."""
    lines = CPLUSPLUS.sub("", text).splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip() or line.startswith(("#include", "#ifndef CESSION_", "#endif")):
            at += 1
            continue
        end = at
        if line.startswith("/*"):
            while "*/" not in lines[end]:
                end += 1
        elif line.startswith("#if"):
            while not lines[end].startswith("#endif"):
                end += 1
        elif line.startswith("#"):
            while lines[end].endswith("\\"):
                end += 1
        else:
            depth = 0
            while True:
                depth += lines[end].count("{") - lines[end].count("}")
                if depth == 0 and re.search(r"[;}](?:\s*/\*.*)?$", lines[end]):
                    break
                end += 1
            # a comment behind a declaration may go on in the next lines
            while "/*" in lines[end] and "*/" not in lines[end].rpartition("/*")[2]:
                end += 1
        yield "\n".join(lines[at : end + 1])
        at = end + 1


def prose(comment: str) -> str:
    """The text of a comment as Markdown; what is indented in it is code."""
    body = comment.strip().removeprefix("/*").removesuffix("*/").strip("\n")
    lines = [re.sub(r"^ \* ?", "", line).rstrip() for line in body.splitlines()]
    lines[0] = lines[0].strip()
    out = []
    for line in lines:
        code = line.startswith("    ")
        out.append(line if code else re.sub(r"([*<])", r"\\\1", line))
    return "\n".join(out).strip()


def declaration(code: str) -> str:
    """A declaration as a caller needs it: no export marks, of an inline function no body."""
    if code.startswith("static inline"):
        code = code[: code.index("\n{")].removeprefix("static inline ") + ";"
    if "CESSION_API" in code or ("(" in code and "{" not in code and not code.startswith("#")):
        code = re.sub(r"\bCESSION_(?:API|MUST_CHECK)\b|\bCESSION_PRINTF\(.*?\)", "", code)
        code, _, remark = code.partition("/*")
        code = re.sub(r"\s+", " ", code).strip().replace(" ;", ";")
        # Between parameters only: no blank inside one is a place to break.
        code = code.replace(", ", ",\0").replace(" ", "\1").replace("\0", " ")
        lines = textwrap.wrap(code, 96, subsequent_indent="    ", break_long_words=False)
        code = "\n".join(lines).replace("\1", " ") + (f" /*{remark}" if remark else "")
    return code


def header(path: Path) -> tuple[str, list[str]]:
    """The Markdown of one header, and the functions in it."""
    parts: list[str] = []
    functions: list[str] = []
    code: list[str] = []
    first = True

    def flush() -> None:
        if code:
            parts.append("```c\n" + "\n".join(code) + "\n```")
            code.clear()

    for chunk in chunks(path.read_text(encoding="utf-8")):
        if chunk == f"#define CESSION_{path.stem.upper()}_H":
            continue
        # The compilers' marks, which a reader has no use for.
        if chunk.startswith(("/* clang-format", "#if")):
            continue
        section = SECTION.match(chunk)
        if section:
            flush()
            parts.append(f"### {section.group(1).strip()}")
        elif chunk.startswith("/*"):
            flush()
            parts.append(prose(chunk))
            first = False
        else:
            if "CESSION_API" in chunk or chunk.startswith("static inline"):
                found = FUNCTION.search(chunk)
                assert found, chunk
                functions.append(found.group(1))
            code.append(declaration(chunk))
    flush()
    assert not first, f"{path.name} says nothing about itself"
    return f"## {path.name}\n\n" + "\n\n".join(parts) + "\n", functions


def reference() -> str:
    paths = sorted(HEADERS.glob("*.h"), key=lambda path: ORDER.index(path.stem))
    made = [(path.name, *header(path)) for path in paths]
    index = [
        f"| [{name}](#{name.replace('.', '')}) | "
        + ", ".join(f"`{function.removeprefix('cession_')}`" for function in functions)
        + " |"
        for name, _, functions in made
    ]
    table = "\n".join(
        ["| header | functions, each with `cession_` in front |", "|---|---|", *index]
    )
    return "\n".join([INTRO, table + "\n", *(text for _, text, _ in made)])


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        if not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
            print("docs/reference.md is not what the headers say: run tools/reference.py")
            return 1
        return 0
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
