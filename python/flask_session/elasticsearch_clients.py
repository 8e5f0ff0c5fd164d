"""Clients of Elasticsearch and OpenSearch, and the few requests that sessions are made of.

elasticsearch-py 8 and 9 and opensearch-py have these methods with the same arguments: so much of
them is used, and nothing else. A key is a secret (who knows it is logged in), and clients, proxies
and servers write URLs to their logs, so keys travel in bodies only: ``_mget`` for a document by its
id, ``_bulk`` of one operation to write it.
"""

from __future__ import annotations

import importlib
import logging
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from . import _core, clients

#: What SESSION_ELASTICSEARCH may be.
ACCEPTED = (
    "a synchronous client object (elasticsearch.Elasticsearch of version 8 or 9,"
    " opensearchpy.OpenSearch), a URL (elasticsearch+https://..., opensearch+https://...), or a"
    " function without arguments that returns such a client"
)
_KEY = "SESSION_ELASTICSEARCH"
_METHODS = ("mget", "bulk", "search")
_LIBRARIES = ("elasticsearch", "opensearchpy")
# elasticsearch-py makes threads wait for a connection when there are no more than that.
_CONNECTIONS = 64
# Only what a purge asks for is indexed. id and val are as Flask-Session2 has them.
_MAPPINGS = {
    "dynamic": False,
    "properties": {
        "id": {"type": "keyword"},
        "val": {"type": "object", "enabled": False},
        "expiration": {"type": "date"},
        "data": {"type": "binary"},
    },
}
_MISSING = "index_not_found_exception"
_logger = logging.getLogger("flask_session")


# ---- clients of our own --------------------------------------------------------------------------


def _plain_transport(library: Any) -> Any:
    """elasticsearch-py names in each request the server's major version that it was made for, and
    an older server refuses that. What is asked for here is the same in all of them."""

    class PlainTransport(library.Transport):  # type: ignore[misc]
        def perform_request(self, *args: Any, **kwargs: Any) -> Any:
            headers = dict(kwargs.pop("headers", {}))
            for name in ("accept", "content-type"):
                if name in headers:
                    headers[name] = re.sub(
                        r"vnd\.elasticsearch\+([\w-]+);\s*compatible-with=\d+", r"\1", headers[name]
                    )
            return super().perform_request(*args, headers=headers, **kwargs)

    return PlainTransport


def own_client(key: str, places: Sequence[str], timeout: float) -> Any:
    """A client whose requests take so many seconds. key: where the URLs come from. With several
    of them another server is tried when one cannot be reached."""
    kinds = {place.partition("+")[0] for place in places if "+" in place.partition(":")[0]}
    urls = [re.sub(r"^\w+\+", "", place) for place in places]
    try:
        parts = [(urlsplit(url), urlsplit(url).port) for url in urls]
        if not all(part.scheme in ("http", "https") and part.hostname for part, _ in parts):
            raise ValueError
        options: dict[str, Any] = {"max_retries": len(urls) - 1, "retry_on_timeout": False}
        if not kinds:  # which one is there
            kinds = {
                "elasticsearch"
                if _has("elasticsearch") or not _has("opensearchpy")
                else "opensearch"
            }
        if "opensearch" in kinds:
            opensearch = clients.require("opensearchpy", "opensearch", "elasticsearch").OpenSearch
            return opensearch(urls, timeout=timeout, pool_maxsize=_CONNECTIONS, **options)
        elasticsearch = clients.require("elasticsearch", "elasticsearch").Elasticsearch
        transport = _plain_transport(clients.require("elastic_transport", "elasticsearch"))
        options.update(transport_class=transport, connections_per_node=_CONNECTIONS)
        return elasticsearch(urls, request_timeout=timeout, **options)
    except (ValueError, TypeError) as error:
        if isinstance(error, _core.SessionConfigError):
            raise
    # Outside: the original error may quote the URL, and with it the password.
    raise _core.SessionConfigError(
        f"{key} must be a URL such as https://name:password@host:9200, then what the client accepts"
    )


def _has(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


# ---- clients that are given ----------------------------------------------------------------------


def _connections(client: Any) -> list[Any]:
    """What a client has for each server."""
    nodes = getattr(client.transport, "node_pool", None)  # elasticsearch-py
    if nodes is not None:
        return list(nodes.all())
    return list(getattr(getattr(client.transport, "connection_pool", None), "connections", ()))


def _warn_if_slow(client: Any) -> None:
    connections = _connections(client)
    if not connections:
        return
    config = getattr(connections[0], "config", None)  # elasticsearch-py
    timeout = getattr(config, "request_timeout", getattr(connections[0], "timeout", None))
    # Those of client.options() come before those of the transport.
    own = getattr(client, "_request_timeout", "unset")
    if own is None or isinstance(own, int | float):
        timeout = own
    settings = []
    for name in ("max_retries", "retry_on_timeout"):
        value = getattr(client, f"_{name}", None)
        settings.append(value if isinstance(value, int) else getattr(client.transport, name, 0))
    retries, after_timeout = settings
    tries = retries + 1 if after_timeout else 1
    clients.warn_if_slow(_KEY, timeout, tries, "set its timeout and max_retries")


def check_client(client: Any) -> Any:
    """The client, if it is one that can be used; no connection is made."""
    # options() came with version 8
    more = ("options",) if _library(client).startswith("elasticsearch") else ()
    clients.check_methods(_KEY, ACCEPTED, client, *_METHODS, *more)
    # An asyncio client's own methods are plain functions, which return coroutines.
    clients.check_methods(_KEY, ACCEPTED, getattr(client, "transport", client), "perform_request")
    _warn_if_slow(client)
    return client


def shared(client: Any) -> Callable[[], Any]:
    """Gives the client to each process. Its connections are of the process that opened them: two
    that use one of them read each other's answers."""
    opened_in = os.getpid()

    def mine() -> Any:
        if os.getpid() != opened_in:
            for connection in _connections(client):
                _close_idle(connection)
        return client

    return clients.PerProcess(mine).get


def _close_idle(connection: Any) -> None:
    """Close what waits to be used again; it is opened again then. The server is not told."""
    session = getattr(connection, "session", None)  # of requests
    if session is not None:
        session.close()
    idle = getattr(getattr(connection, "pool", None), "pool", None)  # of urllib3
    for one in list(getattr(idle, "queue", ())):
        if one is not None:
            one.close()


# ---- requests ------------------------------------------------------------------------------------


def _library(client: Any) -> str:
    """The package that a client comes from."""
    roots = [cls.__module__.partition(".")[0] for cls in type(client).__mro__]
    return next((root for root in roots if root.startswith(_LIBRARIES)), roots[0])


def _server(client: Any, error: Any) -> str:
    """Who answers, as far as it says so."""
    try:
        # elasticsearch-py keeps the password there
        headers = {**getattr(client, "_headers", {}), "accept": "application/json"}
        answer = client.transport.perform_request("GET", "/", headers=headers)
        told = getattr(answer, "body", answer)["version"]
        return f"{told.get('distribution', 'Elasticsearch')} {told['number']}"
    except Exception:  # it may do without, and this is the account of another error
        version = re.search(r"must be either version (\d+)", str(getattr(error, "body", "")))
        return f"Elasticsearch {version[1]}" if version else "a server of an unknown version"


def _check_pair(client: Any, error: Any) -> None:
    """Raise SessionStoreError when the server does not take what this client sends."""
    if (
        type(error).__name__ == "UnsupportedProductError"
        or getattr(error, "status_code", None) == 406
        or getattr(error, "error", None) == "media_type_header_exception"
    ):
        library = _library(client)
        version = getattr(importlib.import_module(library), "__versionstr__", "")
        raise _core.SessionStoreError(
            f"the client {library} {version} cannot be used with {_server(client, error)}:"
            f" {_KEY} must be a client of the server's kind and major version"
        ) from error


class Refused(OSError):
    """The server did not do what it was asked for. Its own words may quote keys and data."""

    def __init__(self, status: int | None, error: Any) -> None:
        kind = error.get("type") if isinstance(error, dict) else None
        super().__init__(f"the server refuses the request ({status or 'no status'}, {kind})")


def _is_missing(error: Any) -> bool:
    return isinstance(error, dict) and error.get("type") == _MISSING


class Index:
    """The index of the sessions. client: gives the client of this process."""

    def __init__(self, client: Callable[[], Any], name: str) -> None:
        self._client, self._name = client, name
        self._made = False

    def _ask(self, method: str, **arguments: Any) -> Any:
        client = self._client()
        try:
            answer = operator.attrgetter(method)(client)(index=self._name, **arguments)
        except Exception as error:
            _check_pair(client, error)
            raise
        return getattr(answer, "body", answer)

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The document of this id as it is now, whether a search finds it yet or not."""
        try:
            [found] = self._ask("mget", body={"ids": [key]}, realtime=True)["docs"]
        except Exception as error:
            if getattr(error, "status_code", None) != 404:
                raise
            found = {"error": {"type": _MISSING}}
        failed = found.get("error")
        if failed is not None:
            if not _is_missing(failed):
                raise Refused(found.get("status"), failed)
            self._made = False
        return found if found.get("found") else None

    def write(self, *operations: tuple[str, dict[str, Any], Any]) -> list[int]:
        """Do what is asked for, (action, its line, document or None) each, and say how that went:
        HTTP statuses, 409 where the condition of a line does not hold, 404 where nothing is."""
        body: list[Any] = []
        for action, line, document in operations:
            body += [{action: line}] if document is None else [{action: line}, document]
        answer = self._ask("bulk", body=body)
        outcomes = [outcome for item in answer["items"] for outcome in item.values()]
        for outcome in outcomes:
            if outcome["status"] not in (200, 201, 404, 409):
                raise Refused(outcome["status"], outcome.get("error"))
            if outcome["status"] == 404 and "error" in outcome:
                self._made = self._made and not _is_missing(outcome["error"])
        return [outcome["status"] for outcome in outcomes]

    def search(self, **body: Any) -> list[Mapping[str, Any]]:
        """What a search finds, after it was made to see every write. Never part of a request."""
        try:
            self._ask("indices.refresh", ignore_unavailable=True)
        except Exception as error:
            if getattr(error, "status_code", None) != 403:  # then it lags behind for a second
                raise
        found = self._ask(
            "search",
            body={"seq_no_primary_term": True, "track_total_hits": False, **body},
            allow_partial_search_results=False,
            ignore_unavailable=True,
        )
        hits: list[Mapping[str, Any]] = found["hits"]["hits"]
        return hits

    def make(self) -> None:
        """Make the index if it is missing, or its field for our data. That is asked for once; a
        server or a role that refuses is put up with."""
        if self._made:
            return
        try:
            mappings = self._mappings()
            if not mappings:
                self._ask("indices.create", body={"mappings": _MAPPINGS})
            elif not all("data" in mapping.get("properties", {}) for mapping in mappings):
                data = {"properties": {"data": _MAPPINGS["properties"]["data"]}}  # type: ignore[index]
                self._ask("indices.put_mapping", body=data)
        except Exception as error:
            status, kind = getattr(error, "status_code", None), getattr(error, "error", None)
            if status not in (400, 403):
                raise
            if kind != "resource_already_exists_exception":  # another process was first
                _logger.warning(
                    "the index of the sessions in Elasticsearch could not be made (%s, %s);"
                    " docs/backends/elasticsearch.md says what to do",
                    status,
                    kind,
                )
        self._made = True

    def _mappings(self) -> list[Any]:
        try:
            return [one["mappings"] for one in self._ask("indices.get_mapping").values()]
        except Exception as error:
            if getattr(error, "status_code", None) != 404:
                raise
        return []
