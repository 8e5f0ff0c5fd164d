"""Moving sessions from one store to another: SESSION_MIGRATE_FROM and SESSION_MIGRATE_TO."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData
from itsdangerous.encoding import base64_decode

from . import _core, config, stores

if TYPE_CHECKING:
    from flask import Flask

    from .base import ServerSideSessionInterface
    from .contract import Stored

#: Ids of sessions that came in a cookie begin with this; no other id does.
COOKIE_PREFIX = "cookie-"
_OFFERED_MAX = 1000


def lifetime_ms(app: Flask) -> int:
    """PERMANENT_SESSION_LIFETIME in milliseconds, rounded up."""
    config.check_lifetime(app)
    return -(-app.permanent_session_lifetime // timedelta(milliseconds=1))


def over_both(app: Flask, interface: ServerSideSessionInterface, store: _core.Store) -> _core.Store:
    """The interface's store, together with the one that SESSION_MIGRATE_FROM or
    SESSION_MIGRATE_TO names; as it is without these."""
    named = {
        key: config.read(app, key)
        for key in ("SESSION_MIGRATE_FROM", "SESSION_MIGRATE_TO")
        if app.config.get(key) is not None
    }
    if not named:
        return store
    if len(named) > 1:
        raise _core.SessionConfigError("SESSION_MIGRATE_FROM and SESSION_MIGRATE_TO are both set")
    [(key, place)] = named.items()
    lifetime = lifetime_ms(app)
    if place == "cookie":
        if key == "SESSION_MIGRATE_TO":
            raise _core.SessionConfigError("SESSION_MIGRATE_TO cannot be 'cookie'")
        if not store.capabilities & _core.CAP_ATOMIC:
            raise _core.SessionConfigError(
                f"SESSION_MIGRATE_FROM = 'cookie' needs a store that can compare and set; with"
                f" {store.name} a cookie could be used again after its logout"
            )
        interface._cookies = CookieStore()
        other = _core.Store.wrap(interface._cookies)
        return store.migrating(other, lifetime, only=COOKIE_PREFIX, tombstone_ms=lifetime)
    if isinstance(place, str) and place.lower() == config.session_type(app):
        raise _core.SessionConfigError(
            f"{key} names the store that SESSION_TYPE names; another one of this type is named by"
            " its URL or by a dict of configuration keys"
        )
    interface._other, other = stores.open_beside(app, key, place)
    return store.migrating(other, lifetime, follow=key == "SESSION_MIGRATE_TO")


class CookieStore:
    """The adapter (see contract.py) over what requests bring: Flask's own signed cookies, each
    offered under an id that follows from it when the request begins, and read when its session
    is. Nothing can be written."""

    name = "cookie"
    capabilities = _core.CAP_GIVES_EXPIRY | _core.CAP_NATIVE_TTL

    def __init__(self) -> None:
        self._offered: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def offer(self, sid: str, value: bytes, expires_at_ms: int) -> None:
        self._offered[sid] = value, expires_at_ms
        while len(self._offered) > _OFFERED_MAX:
            try:
                self._offered.popitem(last=False)
            except KeyError:  # another thread was first
                break

    def load(self, key: str, timeout: float) -> Stored | None:
        found = self._offered.pop(key, None)
        return None if found is None else (found[0], b"", found[1])

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        return False

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        return _core.GONE

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        return _core.GONE

    def remove(self, key: str, timeout: float) -> None:
        self._offered.pop(key, None)


_flask_cookies = SecureCookieSessionInterface()


def read_cookie(app: Flask, text: str) -> tuple[str, dict[str, Any], datetime] | None:
    """(id, data, time of issue) of a session cookie of Flask's own that is valid for the
    application's keys and lifetime; None else."""
    serializer = _flask_cookies.get_signing_serializer(app)
    if serializer is None:
        return None
    seconds = int(app.permanent_session_lifetime.total_seconds())
    try:
        data, issued = serializer.loads(text, max_age=seconds, return_timestamp=True)
        payload, _, signature = text.encode().rpartition(b".")
        # Not the text of the signature, which can be written in more than one way.
        digest = hashlib.sha256(payload + b"." + base64_decode(signature)).digest()
    except BadData:
        return None
    if not isinstance(data, dict) or not data.keys() - {"_permanent"}:
        return None
    sid = COOKIE_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()
    return sid, data, issued


def import_cookie(interface: ServerSideSessionInterface, app: Flask, text: str) -> str | None:
    """The id of the session in a cookie of Flask's own, which is then on offer; None else."""
    found = read_cookie(app, text)
    if found is None or interface._cookies is None:
        return None
    sid, data, issued = found
    try:
        value = interface._encode(data)
    except (TypeError, ValueError, OverflowError) as error:
        app.logger.warning("a session in a cookie holds what cannot be stored: %s", error)
        return None
    expires = issued + app.permanent_session_lifetime
    interface._cookies.offer(sid, value, int(expires.timestamp() * 1000))
    return sid
