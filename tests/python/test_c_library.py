"""`make install`: what it puts where, what the library exports, headers that stand alone, a
reference that says what they say, and cookies read and written as werkzeug does."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from werkzeug.http import dump_cookie
from werkzeug.sansio.http import parse_cookie

from tests.python import c_library
from tests.python.c_library import ROOT, Installed, run

pytestmark = [pytest.mark.process, pytest.mark.slow]

HEADERS = sorted(path.name for path in (ROOT / "include/cession").glob("*.h"))
DECLARED = re.compile(r"^CESSION_API\b[^;]*?\b(cession_\w+)\(", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return c_library.install("plain", tmp_path_factory.mktemp("prefix"))


def declared() -> set[str]:
    """The functions that the headers offer."""
    names: set[str] = set()
    for path in (ROOT / "include/cession").glob("*.h"):
        found = DECLARED.findall(path.read_text())
        assert len(found) == len(set(found))
        names.update(found)
    assert len(names) > 60
    assert "cession_session_commit" in names
    return names


def abi() -> str:
    found = re.search(
        r"^#define CESSION_ABI (\d+)$", (ROOT / "include/cession/cession.h").read_text(), re.M
    )
    assert found
    return found[1]


# ---- what is there ------------------------------------------------------------------------------


def test_installs_headers_libraries_and_documents(installed):
    files = {
        path.relative_to(installed.prefix).as_posix()
        for path in installed.prefix.rglob("*")
        if not path.is_dir()
    }
    number = version("cession")
    assert files == {
        *(f"include/cession/{name}" for name in HEADERS),
        "lib/libcession.a",
        "lib/libcession.so",
        f"lib/libcession.so.{abi()}",
        f"lib/libcession.so.{number}",
        "lib/pkgconfig/cession.pc",
        *(f"share/doc/cession/{name}" for name in ("c.md", "format.md", "reference.md")),
    }
    assert (installed.prefix / "lib/libcession.so").resolve().name == f"libcession.so.{number}"


def test_installs_below_destdir(tmp_path):
    build = ROOT / "build" / "test-install-plain"
    c_library.install("plain", tmp_path / "first")
    meson = Path(sys.executable).parent / "meson"
    run(
        [
            str(meson),
            "install",
            "-C",
            str(build),
            "--no-rebuild",
            "--destdir",
            str(tmp_path / "root"),
        ]
    )
    prefix = (tmp_path / "first").relative_to("/")
    text = (tmp_path / "root" / prefix / "lib/pkgconfig/cession.pc").read_text()
    assert f"prefix={tmp_path / 'first'}\n" in text


def test_the_number_of_the_abi_is_in_the_soname(installed):
    dynamic = run(["readelf", "-d", str(installed.prefix / "lib/libcession.so")])
    assert f"Library soname: [libcession.so.{abi()}]" in dynamic


def test_pkg_config_knows_it(installed):
    assert installed.pkg_config("--modversion") == version("cession")
    include, lib = installed.prefix / "include", installed.prefix / "lib"
    assert installed.pkg_config("--cflags").split() == [f"-I{include}"]
    assert installed.pkg_config("--libs").split() == [f"-L{lib}", "-lcession"]
    assert {"-lsqlite3", "-lcrypto"} <= set(installed.pkg_config("--libs", "--static").split())


# ---- symbols ------------------------------------------------------------------------------------


def symbols(*arguments: str) -> set[str]:
    lines = run(["nm", "--defined-only", *arguments]).splitlines()
    return {line.split()[2] for line in lines if len(line.split()) == 3}


def test_exports_exactly_what_the_headers_declare(installed):
    assert symbols("-D", str(installed.prefix / "lib/libcession.so")) == declared()


def test_the_static_library_keeps_to_its_names(installed):
    found = symbols("-g", str(installed.prefix / "lib/libcession.a"))
    assert declared() <= found
    assert {name for name in found if not name.startswith(("cession_", "ces_"))} == set()


def test_a_program_links_statically_too(installed, tmp_path):
    source = tmp_path / "program.c"
    source.write_text(
        "#include <cession/cession.h>\n#include <stdio.h>\n"
        "int main(void) { return puts(cession_version()) < 0; }\n"
    )
    static = tmp_path / "static"
    static.mkdir()
    # Without the shared one beside it the linker takes the archive.
    (static / "libcession.a").symlink_to(installed.prefix / "lib/libcession.a")
    flags = installed.pkg_config("--static", "--libs").replace(
        f"-L{installed.prefix / 'lib'}", f"-L{static}"
    )
    program = tmp_path / "program"
    include = installed.pkg_config("--cflags")
    run(["cc", "-std=c11", str(source), "-o", str(program), include, *flags.split()])
    assert "libcession" not in run(["ldd", str(program)])
    assert run([str(program)]).strip() == version("cession")


# ---- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "language", "standard", "more"),
    [
        ("gcc", "c", "c11", ["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wc++-compat"]),
        ("g++", "c++", "c++17", ["-Wold-style-cast", "-Wuseless-cast"]),
        ("clang", "c", "c11", ["-Weverything"]),
        ("clang++", "c++", "c++17", ["-Weverything"]),
    ],
)
def test_every_header_stands_alone(installed, not_run, compiler, language, standard, more):
    if not c_library.has(compiler):
        not_run(f"{compiler} is not installed")
    if "-Weverything" in more:
        # What contradicts the standard asked for, and the layout of structs, which is the ABI.
        more = [
            *more, "-Wno-padded", "-Wno-c++98-compat", "-Wno-c++98-compat-pedantic",
            "-Wno-unsafe-buffer-usage", "-Wno-declaration-after-statement",
            "-Wno-unknown-warning-option", "-Wno-pre-c11-compat", "-Wno-c++-keyword",
        ]  # fmt: skip
    for name in HEADERS:
        run([
            compiler, "-x", language, f"-std={standard}", *c_library.WARNINGS, *more,
            "-fsyntax-only", f"-I{installed.prefix / 'include'}", "-include", f"cession/{name}",
            "/dev/null",
        ])  # fmt: skip


def test_a_cplusplus_program_links(installed, tmp_path, not_run):
    if not c_library.has("g++"):
        not_run("g++ is not installed")
    source = tmp_path / "program.cc"
    source.write_text(
        "#include <cession/cession.h>\n#include <cstdio>\n"
        "int main() { return std::puts(cession_version()) < 0; }\n"
    )
    flags = installed.pkg_config("--cflags", "--libs").split()
    run(["g++", "-std=c++17", str(source), "-o", str(tmp_path / "program"), *flags])
    assert run([str(tmp_path / "program")], env=installed.environment()).strip() == version(
        "cession"
    )


# ---- the reference ------------------------------------------------------------------------------


def check_reference(tree: Path) -> int:
    command = [sys.executable, str(tree / "tools/reference.py"), "--check"]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_reference_says_what_the_headers_say(tmp_path):
    assert check_reference(ROOT) == 0
    for folder in ("include", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/reference.md", tmp_path / "docs")
    assert check_reference(tmp_path) == 0
    header = tmp_path / "include/cession/item.h"
    header.write_text(header.read_text().replace("int64_t integer;", "int32_t integer;"))
    assert check_reference(tmp_path) == 1


def test_the_reference_has_every_function():
    text = (ROOT / "docs/reference.md").read_text()
    assert {name for name in declared() if f"{name}(" not in text} == set()


def test_the_example_in_the_documentation_runs(installed, tmp_path):
    text = (ROOT / "docs/c.md").read_text()
    found = re.search(r"```c\n(.*?)```", text, re.DOTALL)
    assert found
    assert "int main(" in found[1]
    source = tmp_path / "visits.c"
    source.write_text(found[1])
    program = installed.build(tmp_path / "visits", source)
    environment = {"SESSION_URL": f"sqlite://{tmp_path}/s.sqlite3"}
    lines = run([str(program)], env=installed.environment(environment)).splitlines()
    assert lines[-1] == "visit 1"
    assert lines[0].startswith("Set-Cookie: session=")
    cookie = lines[0].removeprefix("Set-Cookie: ").partition(";")[0]
    environment["HTTP_COOKIE"] = f"other=1; {cookie}"
    lines = run([str(program)], env=installed.environment(environment)).splitlines()
    assert lines[-1] == "visit 2"


# ---- cookies ------------------------------------------------------------------------------------

COOKIES = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cession/cession.h>

/* Each line is a Cookie header; prints the value in brackets, or - */
static void find(char *line)
{
    cession_span value;
    line[strcspn(line, "\\n")] = 0;
    if (cession_cookie_find(cession_span_str(line), cession_span_str("session"), &value, NULL))
        puts("-");
    else
        printf("[%.*s]\\n", (int)value.len, (const char *)value.data);
}

static const char *text(char *field)
{
    return *field ? field : NULL;
}

/* Fields: value, expires, name, domain, path, same_site, secure, partitioned, script_access */
static void write_one(char *line)
{
    char *fields[9];
    line[strcspn(line, "\\n")] = 0;
    for (size_t i = 0; i < 9; i++) {
        fields[i] = line;
        line += strcspn(line, "\\t");
        if (*line)
            *line++ = 0;
    }
    const cession_cookie_attributes attributes = {
        .name = text(fields[2]), .domain = text(fields[3]), .path = text(fields[4]),
        .same_site = text(fields[5]), .secure = *fields[6] == '1',
        .partitioned = *fields[7] == '1', .script_access = *fields[8] == '1'};
    cession_buf out;
    cession_buf_init(&out, 8192);
    cession_error err = CESSION_ERROR_INIT;
    cession_span value = cession_span_str(fields[0]);
    if (cession_cookie_write(&attributes, value, atoll(fields[1]), &out, &err))
        printf("! %s\\n", err.text);
    else
        printf("%.*s\\n", (int)out.len, (const char *)out.data);
    cession_buf_release(&out);
}

int main(int argc, char **argv)
{
    char line[8192];
    (void)argv;
    while (fgets(line, sizeof line, stdin)) {
        if (argc > 1)
            write_one(line);
        else
            find(line);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def cookies(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cookies")
    (folder / "cookies.c").write_text(COOKIES)
    program = installed.build(folder / "cookies", folder / "cookies.c")

    def ask(lines: list[str], *arguments: str) -> list[str]:
        done = subprocess.run(
            [str(program), *arguments], env=installed.environment(), check=True,
            input="".join(f"{line}\n" for line in lines), capture_output=True, text=True,
        )  # fmt: skip
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines)
        return answers

    return ask


def test_finds_the_cookie_that_werkzeug_finds(cookies, long_run):
    choose = random.Random(8)
    pieces = [
        "session", "session", "other", "=", "=", ";", "; ", " ", "\t", '"', "a", "b.c", "-", ",",
    ]  # fmt: skip
    headers = [
        "".join(choose.choices(pieces, k=choose.randrange(14)))
        for _ in range(200_000 if long_run else 20_000)
    ]
    headers += ["session=abc", 'session="a;b"; x', "x=1; session = y ;"]
    answers = cookies(headers)
    wanted = []
    for header in headers:
        value = parse_cookie(header).get("session")
        wanted.append("-" if value is None else f"[{value}]")
    differing = [row for row in zip(headers, answers, wanted, strict=True) if row[1] != row[2]]
    assert differing == []
    assert len(set(wanted)) > 50


def test_writes_the_cookie_that_werkzeug_writes(cookies):
    choose = random.Random(9)
    rows = []
    for _ in range(2000):
        rows.append({
            "value": choose.choice(["", "abc", "a.b-_", "x" * 43, "!#$%&'()*+-./:<=>?@[]^`{|}~"]),
            "expires": choose.choice([-1, 0, 1, 1709210096, choose.randrange(253402300800)]),
            "key": choose.choice(["session", "n", "__Host-s"]),
            "domain": choose.choice(["", "example.org", ".example.org", "localhost:80"]),
            "path": choose.choice(["", "/", "/a b", "/\u00e9;x", "/%41/~+"]),
            "samesite": choose.choice(["", "lax", "Strict", "NONE"]),
            "secure": choose.choice([False, True]),
            "partitioned": choose.choice([False, True]),
            "script": choose.choice([False, True]),
        })  # fmt: skip
    fields = ("value", "expires", "key", "domain", "path", "samesite")
    lines = [
        "\t".join([
            *(str(row[name]) for name in fields),
            *(str(int(row[name])) for name in ("secure", "partitioned", "script")),
        ])
        for row in rows
    ]  # fmt: skip
    answers = cookies(lines, "write")
    for row, answer in zip(rows, answers, strict=True):
        deletes = row["value"] == ""
        expires = 0 if deletes else row["expires"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wanted = dump_cookie(
                row["key"], row["value"], max_age=0 if deletes else None,
                expires=None if expires < 0 else expires, path=row["path"] or "/",
                domain=row["domain"] or None, secure=row["secure"], httponly=not row["script"],
                samesite=row["samesite"] or None, partitioned=row["partitioned"],
            )  # fmt: skip
        assert answer == wanted, json.dumps(row)
