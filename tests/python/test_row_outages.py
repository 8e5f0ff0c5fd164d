"""The server of every row of tests/rows is stopped, killed, frozen and restarted under a running
application.

These tests assert how long a request takes at most, because that is what is promised: what the
client's own settings add up to (Row.patience) and a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests import long_run_wanted
from tests.python.apps import failing
from tests.rows import Row, Settings, Where, configuration, leading, parameters, with_timeout
from tests.rows.redis import RedisRow
from tests.rows.redis import client as redis_client

USERS = ("ann", "bob")
# Seconds that the client waits.
TIMEOUT = 1.0
# Seconds after its return within which the store is asked again.
AWAY = 1.5


def stopped(row: type[Row]) -> bool:
    return hasattr(row, "service") and leading(row)


@pytest.fixture(params=parameters(stopped))
def row(request: pytest.FixtureRequest, start_row: Any) -> Any:
    return start_row(request.param, own=True)


class Site:
    """An application whose store fails, and visitors who are logged in."""

    def __init__(self, kind: type[Row], row: Row) -> None:
        self.kind = kind
        self.app = failing.make_app(configuration(kind, row.where), "store")
        self.visitors = {user: self.app.test_client() for user in USERS}
        for user, visitor in self.visitors.items():
            assert visitor.get(f"/write/{user}").status_code == 200

    def get(self, path: str, hook: Callable[[], None] = lambda: None, user: str = "ann") -> Any:
        """The answer, which must be there in time after the hook's end."""
        start = time.monotonic()

        def run() -> None:
            nonlocal start
            hook()
            start = time.monotonic()

        self.app.hook = run
        answer = self.visitors[user].get(path)
        assert time.monotonic() - start <= self.kind.patience() + 1
        return answer

    def check_back(self, kept: bool) -> None:
        """Everything works at once, and everybody gets his own session."""
        for user in USERS:
            answer = self.get("/read", user=user)
            assert answer.status_code == 200
            assert answer.text == user or (answer.text == "None" and not kept)
        for user in USERS:
            assert self.get(f"/write/{user}-again", user=user).status_code == 200
        for user in USERS:
            assert self.get("/read", user=user).text == f"{user}-again"


@pytest.fixture
def site(row: Row) -> Site:
    return Site(with_timeout(type(row), TIMEOUT), row)


@pytest.fixture
def idle(row: Row) -> Site:
    """Nobody visits it while the server is away. (Another timeout, so that it shares no pool.)"""
    return Site(with_timeout(type(row), 1.5 * TIMEOUT), row)


def assert_down(answer: Any) -> None:
    assert (answer.status_code, answer.text) == (418, "the store is down")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_the_server_is_gone_between_load_and_save(row, site, idle, way):
    assert_down(site.get("/write-late/x", hook=getattr(row.server, way)))
    assert_down(site.get("/read"))
    assert site.get("/caught").text == "down,down,down"
    assert site.get("/untouched").status_code == 200
    # After a kill so often that the store is left alone for a while.
    for _ in range(6 if way == "kill" else 1):
        assert_down(site.get("/read", user="bob"))
    row.server.restart()
    time.sleep(AWAY)
    site.check_back(row.durable)
    idle.check_back(row.durable)


def test_the_server_freezes_between_load_and_save(row, site, idle):
    """Its late answers are for nobody."""
    assert_down(site.get("/write-late/x", hook=row.server.pause))
    assert_down(site.get("/read", user="bob"))
    assert site.get("/untouched").status_code == 200
    row.server.resume()
    time.sleep(AWAY)
    site.check_back(kept=True)
    idle.check_back(kept=True)


# ---- clients that repeat ------------------------------------------------------------------------


class Repeating(RedisRow):
    """redis-py that tries three times."""

    timeout = 0.4

    @classmethod
    def settings(cls, where: Where) -> Settings:
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry

        made = redis_client(where["REDIS_URL"], cls.timeout, retry=Retry(ConstantBackoff(0.1), 2))
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": made}

    @classmethod
    def patience(cls) -> float:
        return (cls.timeout + 0.1) * 3


class Stock(RedisRow):
    """redis-py as it comes: 5 seconds and 10 repetitions with up to a second in between."""

    @classmethod
    def settings(cls, where: Where) -> Settings:
        import redis

        made = redis.Redis.from_url(where["REDIS_URL"])
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": made}

    @classmethod
    def patience(cls) -> float:
        return (5.0 + 1.0) * 11


@pytest.mark.server
@pytest.mark.parametrize("kind", [Repeating, *([Stock] if long_run_wanted() else [])])
@pytest.mark.parametrize("way", ["stop", "pause"])
def test_a_client_that_repeats(start_row, kind, way):
    row = start_row("redis", own=True)
    site = Site(kind, row)
    assert_down(site.get("/write-late/x", hook=getattr(row.server, way)))
    assert_down(site.get("/read", user="bob"))
    if way == "pause":
        row.server.resume()
    else:
        row.server.restart()
    time.sleep(AWAY)
    site.check_back(kept=way == "pause")
