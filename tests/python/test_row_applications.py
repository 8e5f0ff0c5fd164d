"""Whole applications on every row of tests/rows: what a visitor sees, and what a request costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from flask_session import _core

from tests.python.apps.counted import UNTOUCHED, Site, cookies_of
from tests.rows import Row, Where, configuration, new_prefix

READ = {"load": 1}
CHANGE = {"load": 1, "replace": 1}


class RowSite(Site):
    """The application on a row, counted by a proxy in front of its server, if there can be one."""

    def __init__(self, folder: Path, row: Row, where: Where, proxy: Any = None, **settings: Any):
        super().__init__(folder, **configuration(type(row), where, **settings))
        self.row = row
        self.proxy = None
        # A connection has its greeting, a script or a statement is prepared once.
        client = self.app.test_client()
        for _ in range(6 if proxy else 0):
            for path in ("/set/a/1", "/get", "/set/a/2", "/mark", "/login", "/clear"):
                client.get(path)
        self.proxy = proxy

    def server_reset(self):
        if self.proxy is not None:
            self.proxy.reset()

    def server_check(self, operations, not_found):
        if self.proxy is not None:
            costs = self.row.round_trips
            wanted = sum(costs.get(name, 1) * count for name, count in operations.items())
            wanted += costs.get("not_found", 0) * not_found
            assert (self.proxy.round_trips, self.proxy.connections) == (wanted, 0), operations


@pytest.fixture
def site(row: Row, tmp_path: Path) -> RowSite:
    return RowSite(tmp_path, row, row.where)


def sid_of(client: Any) -> str:
    sid: str = client.get_cookie("session").value
    return sid


def with_cookie(site: Site, sid: str) -> Any:
    client = site.app.test_client()
    client.set_cookie("session", sid)
    return client


def test_what_a_request_costs(row, tmp_path, counting_proxy):
    proxy, where = None, row.where
    if row.one_port:
        proxy = counting_proxy(row.server.port())
        where = row.through(proxy.port)
    site = RowSite(tmp_path, row, where, proxy)
    stranger = site.app.test_client()
    for path in ("/untouched", "/get", "/clear"):
        site.visit(stranger, path, {})
    visitor = site.browser()
    site.visit(visitor, "/untouched", UNTOUCHED)
    for _ in range(3):
        site.visit(visitor, "/get", READ)
    site.visit(visitor, "/get-often", READ)
    site.visit(visitor, "/set/user/bob", CHANGE)
    site.visit(visitor, "/make-nested", CHANGE)
    site.visit(visitor, "/nested", CHANGE)
    site.visit(visitor, "/set-the-same", {"load": 1, "touch": 1})
    site.visit(visitor, "/get", READ)
    site.visit(visitor, "/flash/hello", CHANGE)
    site.visit(visitor, "/flashed", CHANGE)
    site.visit(visitor, "/login", {"load": 1, "create": 1, "replace": 1})
    site.visit(visitor, "/get", READ)
    site.visit(with_cookie(site, _core.generate_sid(32)), "/get", READ)
    site.visit(visitor, "/clear", {"load": 1, "remove": 1})
    site.visit(visitor, "/get", {})


def test_a_visit(site):
    """From the first request to the logout."""
    browser = site.app.test_client()
    assert browser.get("/get").text == "None"
    assert browser.get_cookie("session") is None
    browser.get("/set/visit/first")
    anonymous = sid_of(browser)
    assert len(cookies_of(browser.get("/login"))) == 1
    sid = sid_of(browser)
    assert sid != anonymous
    assert browser.get("/get").text == "ann"
    assert cookies_of(browser.get("/get")) == []
    content = _core.decode(site.record(browser)[0])
    assert content == {"_permanent": True, "visit": "first", "user": "ann"}
    # The id from before the login is worth nothing.
    assert with_cookie(site, anonymous).get("/get").text == "None"

    browser.get("/make-nested")
    for _ in range(3):
        browser.get("/nested")
    assert _core.decode(site.record(browser)[0])["nested"] == {"list": [1, 1, 1]}

    browser.get("/flash/hello")
    browser.get("/flash/again")
    assert browser.get("/flashed").text == "hello,again"
    assert browser.get("/flashed").text == ""

    assert sid_of(browser) == sid
    browser.get("/clear")
    assert browser.get_cookie("session") is None
    assert site.store.load(sid) is None
    thief = with_cookie(site, sid)
    assert thief.get("/get").text == "None"
    # The id is not taken up again by whoever still sends it.
    thief.get("/set/user/eve")
    assert sid_of(thief) != sid
    assert with_cookie(site, sid).get("/get").text == "None"
    assert thief.get("/get").text == "eve"


def test_visitors_are_kept_apart(site):
    browsers = {name: site.app.test_client() for name in ("ann", "bob", "eve")}
    for name, browser in browsers.items():
        browser.get(f"/set/user/{name}")
    for name, browser in browsers.items():
        assert browser.get("/get").text == name
    browsers["bob"].get("/clear")
    assert [browser.get("/get").text for browser in browsers.values()] == ["ann", "None", "eve"]


def test_an_expired_session_is_logged_out(row, tmp_path):
    site = RowSite(tmp_path, row, row.where, PERMANENT_SESSION_LIFETIME=1)
    sids = []
    for name in ("ann", "bob"):
        browser = site.app.test_client()
        browser.get(f"/set/user/{name}")
        sids.append(sid_of(browser))
    time.sleep(1 + row.tick_ms / 1000 + 0.1)
    # As somebody who still sends the cookie would.
    reader, writer = (with_cookie(site, sid) for sid in sids)
    assert reader.get("/get").text == "None"
    assert site.visit(writer, "/set/other/1", {"load": 1, "create": 1}).status_code == 200
    assert sid_of(writer) not in sids
    assert site.store.load(sids[1]) is None
    assert writer.get("/get").text == "None"


def test_a_restarted_application_knows_its_visitors(row, tmp_path):
    prefix = new_prefix()
    first = RowSite(tmp_path, row, row.where, SESSION_KEY_PREFIX=prefix)
    sid = sid_of(first.browser())
    second = RowSite(tmp_path, row, row.where, SESSION_KEY_PREFIX=prefix)
    visitor = with_cookie(second, sid)
    assert visitor.get("/get").text == "ann"
    visitor.get("/set/user/bob")
    assert with_cookie(first, sid).get("/get").text == "bob"
    visitor.get("/clear")
    assert with_cookie(first, sid).get("/get").text == "None"


@pytest.mark.parametrize(("written", "read"), [("msgpack", "json"), ("json", "msgpack")])
def test_either_format_is_read_under_the_other(row, tmp_path, written, read):
    prefix = new_prefix()
    first, second = (
        RowSite(
            *(tmp_path, row, row.where),
            SESSION_KEY_PREFIX=prefix,
            SESSION_SERIALIZATION_FORMAT=name,
        )
        for name in (written, read)
    )
    sid = sid_of(first.browser())
    assert with_cookie(second, sid).get("/get").text == "ann"
    with_cookie(second, sid).get("/set/user/bob")
    assert with_cookie(first, sid).get("/get").text == "bob"
