"""examples/c beside a running Flask application: one store, one cookie, two languages. The programs
are built from an installed prefix, with and without sanitizers."""

from __future__ import annotations

import html
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import Signer

from tests.python import c_library
from tests.python.c_library import ROOT, Installed
from tests.services.web import Answer, Browser, Gunicorn, Lighttpd

pytestmark = [pytest.mark.process, pytest.mark.slow]

EXAMPLES = ROOT / "examples" / "c"
NEW, OLD = "the new key", 'the "old" key \\ with more'
ROWS = {
    "sqlite": ("sqlite", "plain", False),
    "sqlite, signed, sanitized": ("sqlite", "sanitized", True),
    "filesystem, signed": ("filesystem", "plain", True),
    "redis, signed": ("redis", "plain", True),
    "redis, signed, sanitized": ("redis", "sanitized", True),
}


@dataclass
class Programs:
    installed: Installed
    reader: Path
    page: Path


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Programs]:
    """programs(kind): the library installed, the examples built, once each."""
    made: dict[str, Programs] = {}

    def make(kind: str) -> Programs:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            installed = c_library.install(kind, folder / "prefix")
            shared = EXAMPLES / "site.c"
            made[kind] = Programs(
                installed,
                installed.build(folder / "reader", EXAMPLES / "read_session.c", shared),
                installed.build(folder / "page", EXAMPLES / "session_page.c", shared),
            )
        return made[kind]

    return make


class Site:
    """The Flask application, the page beside it, and the reader."""

    def __init__(self, folder: Path, programs: Programs, url: str, signed: bool) -> None:
        self.folder, self.programs, self.signed = folder, programs, signed
        # The apostrophe and the space are part of the test.
        self.prefix = f"it's {uuid.uuid4().hex[:12]}:"
        self.settings = {
            "SESSION_URL": url,
            "SESSION_KEY_PREFIX": self.prefix,
            "SESSION_COOKIE_SAMESITE": "Lax",
            "PERMANENT_SESSION_LIFETIME": 7200,
            "SECRET_KEY": NEW,
            "SECRET_KEY_FALLBACKS": [OLD, "an even older one"],
            "SESSION_USE_SIGNER": signed,
        }
        self.environment = {
            name: str(value)
            for name, value in self.settings.items()
            if isinstance(value, str | int)
        }
        self.environment["SECRET_KEY_FALLBACKS"] = f"{OLD}\nan even older one"
        self.environment["SESSION_USE_SIGNER"] = str(int(signed))
        self.servers: list[Any] = []

    def start(self) -> None:
        flask_env = {
            "CESSION_NEIGHBOUR": json.dumps(self.settings),
            "PYTHONPATH": str(ROOT / "tests/python/apps"),
        }
        run_env = {
            name: value
            for name, value in self.programs.installed.environment(self.environment).items()
            if name in self.environment or name.endswith(("_OPTIONS", "LIBRARY_PATH"))
        }
        flask = Gunicorn(self.folder / "flask", "neighbour:app", env=flask_env, threads=4)
        page = Lighttpd(self.folder / "page", str(self.programs.page), env=run_env)
        for server in (flask, page):
            self.servers.append(server)
            server.start()
        self.flask_url, self.page_url, self.page_server = flask.url, page.url, page

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
        # What a sanitizer says ends a program, and the server's log has it.
        assert "ERROR: " not in self.page_server.log()
        assert "runtime error" not in self.page_server.log()

    def visitor(self) -> Visitor:
        return Visitor(self)

    def login(self, user: str = "alice") -> Visitor:
        visitor = self.visitor()
        assert visitor.flask.post(f"/login/{user}").text == "ok"
        return visitor

    def read(
        self, cookie: str, *arguments: str, by_environment: bool = False, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """The reader; the cookie's value never stands in its arguments."""
        environment = {**self.environment, **settings}
        if by_environment:
            environment["SESSION_COOKIE"] = cookie
        return subprocess.run(
            [str(self.programs.reader), *arguments],
            env=self.programs.installed.environment(environment),
            input="" if by_environment else f"{cookie}\n",
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip


class Visitor:
    """One browser at both servers: they are parts of one site."""

    def __init__(self, site: Site, cookies: dict[str, str] | None = None) -> None:
        self.site = site
        self.cookies = {} if cookies is None else cookies
        self.flask = Browser(site.flask_url, self.cookies)
        self.page = Browser(site.page_url, self.cookies)

    def twin(self) -> Visitor:
        return Visitor(self.site, dict(self.cookies))

    @property
    def cookie(self) -> str:
        return self.cookies["session"]

    def flask_sees(self) -> dict[str, str]:
        return json.loads(self.flask.get("/all").body)

    def logged_in(self) -> bool:
        return "user" in self.flask_sees()

    def page_shows(self) -> dict[str, str]:
        return shown(self.page.get())

    def token(self) -> str:
        found = re.search(r'name="token" value="([^"]+)"', self.page.get().text)
        assert found
        return html.unescape(found[1])

    def note(self, name: str, text: str, token: str | None = None) -> Answer:
        data = {"action": "note", "name": name, "text": text, "token": token or self.token()}
        return self.page.post("/", data)


def shown(answer: Answer) -> dict[str, str]:
    assert answer.status == 200, answer.text
    pairs = re.findall(r"<dt>(.*?)<dd>(.*?)\n", answer.text)
    return {html.unescape(key): html.unescape(value) for key, value in pairs}


@pytest.fixture(
    scope="module",
    params=[
        # Its library is one more to build.
        pytest.param(name, marks=[pytest.mark.full] if kind == "sanitized" else [])
        for name, (_, kind, _) in ROWS.items()
    ],
)
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    programs: Callable[[str], Programs],
) -> Iterator[Site]:
    store, kind, signed = ROWS[request.param]
    folder = tmp_path_factory.mktemp("site")
    if store == "redis":
        url = request.getfixturevalue("redis_server").url
    else:
        url = f"{store}://{folder}/sessions"
    made = Site(folder, programs(kind), url, signed)
    made.start()
    yield made
    made.stop()


# ---- each sees the other's ----------------------------------------------------------------------


def test_the_reader_prints_what_flask_wrote(site):
    visitor = site.login()
    assert visitor.flask.post("/types").text == "ok"
    done = site.read(visitor.cookie)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "_permanent = true",
        'user = "alice"',
        "none = null",
        "truth = true",
        "number = -7",
        "large = 18446744073709551615",
        "float = 0.10000000000000001",
        'text = "a"<\u00e9\\x1b"',
        "bytes = <2 bytes>",
        'nested = {"list": [1, [], {}], "empty": {}}',
        "day = <extension 12>",
        "price = <extension 8>",
        "7 = <extension 1>",
    ]
    assert site.read(visitor.cookie, by_environment=True).stdout == done.stdout


def test_the_reader_changes_nothing(site):
    visitor = site.login()
    before = visitor.flask_sees()
    for _ in range(3):
        assert site.read(visitor.cookie).returncode == 0
    assert visitor.flask_sees() == before


def test_the_page_shows_what_flask_wrote(site):
    visitor = site.login('<b>&"')
    assert visitor.flask.post("/types").text == "ok"
    answer = visitor.page.get()
    assert "<b>" not in answer.text
    page = shown(answer)
    assert page["user"] == '"<b>&""'
    assert page["text"] == '"a"<\u00e9\ufffd"'
    assert page["nested"] == '{"list": [1, [], {}], "empty": {}}'
    assert answer.header("Vary") == "Cookie"
    assert answer.header("Cache-Control") == "no-store"


def test_changes_go_both_ways(site):
    visitor = site.login()
    answer = visitor.note("color", 'gr\u00fcn & "rot"')
    assert shown(answer)["note_color"] == '"gr\u00fcn & "rot""'
    assert visitor.flask_sees()["note_color"] == 'gr\u00fcn & "rot"'
    assert visitor.flask.post("/set/note_color/blau").text == "ok"
    assert visitor.page_shows()["note_color"] == '"blau"'
    assert visitor.flask.post("/set/cart/book").text == "ok"
    assert visitor.page_shows()["cart"] == '"book"'
    visitor.note("color", "")
    assert visitor.flask_sees().keys() == {"_permanent", "user", "page_token", "cart"}
    # and what Python only knows goes back unchanged
    assert visitor.flask.post("/types").text == "ok"
    before = visitor.flask_sees()
    visitor.note("more", "1")
    assert visitor.flask_sees() == {**before, "note_more": "1"}


def test_concurrent_changes_lose_nothing(site, long_run):
    """Two browsers' worth of requests at each side at once, all of one session."""
    visitor = site.login()
    token = visitor.token()
    count = 100 if long_run else 20

    def through_flask(twin: Visitor, number: int) -> None:
        for i in range(count):
            answer = twin.flask.post(f"/set/f{number}_{i}/{i}")
            assert (answer.status, answer.text) == (200, "ok")

    def through_page(twin: Visitor, number: int) -> None:
        for i in range(count):
            assert twin.note(f"c{number}_{i}", str(i), token).status == 200

    with ThreadPoolExecutor(4) as pool:
        for future in [
            pool.submit(work, visitor.twin(), number)
            for number in range(2)
            for work in (through_flask, through_page)
        ]:
            future.result()
    wanted = {"_permanent": "True", "user": "alice", "page_token": token}
    for number in range(2):
        for i in range(count):
            wanted |= {f"f{number}_{i}": str(i), f"note_c{number}_{i}": str(i)}
    assert visitor.flask_sees() == wanted
    assert visitor.page_shows().keys() == wanted.keys()


# ---- logging out --------------------------------------------------------------------------------


def test_a_logout_in_flask_is_one_for_c(site):
    visitor = site.login()
    token = visitor.token()
    late = visitor.twin()
    assert visitor.flask.post("/logout").text == "ok"
    assert "session" not in visitor.cookies
    done = site.read(late.cookie)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "read_session: no such session\n"
    # nothing brings it back
    answer = late.note("color", "red", token)
    assert (answer.status, answer.all("Set-Cookie")) == (403, [])
    assert shown(late.page.get()) == {}
    assert not late.logged_in()


def test_a_logout_in_c_is_one_for_flask(site):
    visitor = site.login()
    late = visitor.twin()
    assert late.flask_sees()["user"] == "alice"
    answer = visitor.page.post("/", {"action": "logout", "token": visitor.token()})
    assert "You have no session" in answer.text
    assert "session" not in visitor.cookies
    assert not late.logged_in()
    assert site.read(late.cookie).returncode == 1


def test_a_new_id_in_flask_is_one_for_c(site):
    visitor = site.login()
    late = visitor.twin()
    assert visitor.flask.post("/login/bob").text == "ok"
    assert visitor.cookie != late.cookie
    assert visitor.page_shows()["user"] == '"bob"'
    assert site.read(late.cookie).returncode == 1
    assert shown(late.page.get()) == {}
    assert late.note("color", "red", "token").status == 403


# ---- the cookie ---------------------------------------------------------------------------------


def without_date(line: str) -> str:
    return re.sub(r"Expires=[^;]+", "Expires=", line)


def test_both_write_the_same_cookie(site):
    visitor = site.login()
    token = visitor.token()
    [flask] = visitor.flask.post("/set/a/1").all("Set-Cookie")
    [page] = visitor.note("a", "1", token).all("Set-Cookie")
    assert without_date(flask) == without_date(page)
    assert ("." in visitor.cookie) == site.signed
    assert "SameSite=Lax" in page
    other = visitor.twin()
    [flask] = visitor.flask.post("/logout").all("Set-Cookie")
    other = site.login()
    data = {"action": "logout", "token": other.token()}
    [page] = other.page.post("/", data).all("Set-Cookie")
    assert flask == page


def test_older_keys_are_accepted_and_renewed(site):
    """Where nothing is signed any more: signatures are taken off."""
    visitor = site.login()
    current = visitor.cookie
    sid = current.partition(".")[0]
    visitor.token()
    old = Signer(OLD, salt="flask-session", key_derivation="hmac").sign(sid).decode()
    assert old != current
    assert site.read(old).returncode == 0
    visitor.cookies["session"] = old
    answer = visitor.page.get()
    assert shown(answer)["user"] == '"alice"'
    assert visitor.cookie == current
    foreign = Signer("a foreign key", salt="flask-session", key_derivation="hmac").sign(sid)
    unsigned = [sid] if site.signed else []
    for wrong in (*unsigned, foreign.decode(), current[:-1], f"{current}x", f"x{current}"):
        assert site.read(wrong).returncode == 1
        visitor.cookies["session"] = wrong
        assert shown(visitor.page.get()) == {}
        assert not visitor.logged_in()


def test_without_a_session(site):
    visitor = site.visitor()
    answer = visitor.page.get()
    assert "You have no session" in answer.text
    assert answer.all("Set-Cookie") == []
    assert site.read("").returncode == 1
    assert site.read("no such session, whatever").returncode == 1
    # another prefix is another application
    logged_in = site.login()
    assert site.read(logged_in.cookie, SESSION_KEY_PREFIX="other:").returncode == 1


# ---- refusals -----------------------------------------------------------------------------------


def test_forged_requests_are_refused(site):
    visitor = site.login()
    visitor.token()
    before = visitor.flask_sees()
    for data in (
        {"action": "logout", "token": "guess"},
        {"action": "logout"},
        {"action": "note", "name": "a", "text": "b"},
        {"action": "other", "token": visitor.token()},
        {"action": "note", "name": "", "text": "b", "token": visitor.token()},
        {"action": "note", "name": "a" * 65, "text": "b", "token": visitor.token()},
        {"action": "note", "name": "a", "text": b"\xff", "token": visitor.token()},
        {},
    ):
        answer = visitor.page.post("/", data)
        assert answer.status in (400, 403)
        assert answer.all("Set-Cookie") == []
    assert visitor.page.request("PUT", "/").status == 405
    # quotes as other sites' programs put them into cookies
    answer = visitor.page.request(
        "GET", "/", headers={"Cookie": f'other="a;b"; session={visitor.cookie}'}
    )
    assert shown(answer)["user"] == '"alice"'
    assert visitor.flask_sees() == before


def test_secrets_stay_out_of_arguments_and_messages(site):
    visitor = site.login()
    done = site.read(visitor.cookie, visitor.cookie)
    assert (done.returncode, done.stdout) == (2, "")
    assert visitor.cookie not in done.stderr
    done = site.read(visitor.cookie, SESSION_URL="sqlite:///dev/null/not/there.sqlite3")
    assert (done.returncode, done.stdout) == (2, "")
    assert visitor.cookie.partition(".")[0] not in done.stderr
    done = site.read(visitor.cookie, SESSION_URL="")
    assert done.returncode == 2
    assert done.stderr == "read_session: SESSION_URL is not set\n"


def test_a_store_that_is_down(site, tmp_path, web_servers):
    environment = {**site.page_server.env, "SESSION_URL": "sqlite:///dev/null/not/there"}
    server = web_servers(
        Lighttpd, str(site.programs.page), None, tmp_path / "down", {"env": environment}
    )
    visitor = site.login()
    broken = Browser(server.url, visitor.cookies)
    answer = broken.get()
    assert (answer.status, answer.all("Set-Cookie")) == (503, [])
    assert "session_page: " in server.log()
    assert visitor.cookie.partition(".")[0] not in server.log()
    assert visitor.flask_sees()["user"] == "alice"
