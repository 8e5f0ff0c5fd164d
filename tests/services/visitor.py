"""A visitor with a cookie jar as the standard library's http.cookiejar keeps it, who may have
several requests under way at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from http.cookiejar import Cookie, CookieJar
from typing import TYPE_CHECKING, Any

from .web import Answer

if TYPE_CHECKING:
    from typing_extensions import Self


class Visitor:
    def __init__(self, url: str, pool: ThreadPoolExecutor | None = None, timeout: float = 90):
        self.url = url
        self.jar = CookieJar()
        self.timeout = timeout
        self._pool = pool
        # Responses of any status are answers, and nothing is followed.
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(urllib.request.HTTPHandler())
        self._opener.add_handler(urllib.request.HTTPCookieProcessor(self.jar))

    def twin(self) -> Self:
        """Another browser with the same cookies now, which go their own way from here on."""
        other = type(self)(self.url, self._pool, self.timeout)
        for cookie in self.jar:
            other.jar.set_cookie(cookie)
        return other

    @property
    def sid(self) -> str | None:
        """The value of the session cookie."""
        return next((c.value for c in self.jar if c.name == "session"), None)

    @sid.setter
    def sid(self, value: str | None) -> None:
        self.jar.clear()
        if value is not None:
            self.jar.set_cookie(
                Cookie(
                    0, "session", value, None, False, "127.0.0.1", False, False, "/", True,
                    False, None, True, None, None, {},
                )
            )  # fmt: skip

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with self._opener.open(request, timeout=self.timeout) as response:
            return Answer(response.status, response.getheaders(), response.read())

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> Answer:
        return self.request("POST", path, body)

    def start(self, method: str, path: str, body: Any = None) -> Future[Answer]:
        """The same in a thread of its own."""
        assert self._pool is not None
        return self._pool.submit(self.request, method, path, body)
