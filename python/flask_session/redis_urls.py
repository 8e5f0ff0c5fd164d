"""The client of redis-py that a Redis URL stands for, where the C driver does not serve it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

# Schemes that redis-py knows by another name.
_REDIS_PY = {"valkey": "redis", "valkeys": "rediss", "redis+unix": "unix"}
_SENTINEL_PORT, _PORT = 26379, 6379


def _places(text: str, default: int) -> list[tuple[str, int]]:
    """host[:port],host[:port]; an IPv6 address stands in brackets."""
    places = []
    for place in text.split(","):
        parts = urlsplit(f"//{place}")
        if not parts.hostname:
            raise ValueError("an empty name of a host")
        places.append((parts.hostname, default if parts.port is None else parts.port))
    return places


def make_client(redis: Any, url: str, limits: dict[str, Any]) -> Any:
    """redis: the library; limits: connection parameters of ours. ValueError where it is no URL."""
    scheme, colon, rest = url.partition(":")
    _, _, topology = scheme.lower().partition("+")
    if topology not in ("sentinel", "cluster"):
        return redis.Redis.from_url(_REDIS_PY.get(scheme, scheme) + colon + rest, **limits)
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    tls = scheme.lower().startswith("rediss")
    query = f"?{parts.query}" if parts.query else ""
    plain = f"{'rediss' if tls else 'redis'}://{user}{at}localhost/{db}{query}"
    settings = redis.connection.parse_url(plain)
    for name in ("host", "port", "connection_class", "scan_prefix"):
        settings.pop(name, None)
    settings = {**settings, **limits, "ssl": tls}
    if topology == "cluster":
        if service:
            raise ValueError("a cluster has no database")
        node = redis.cluster.ClusterNode
        nodes = [node(host, port) for host, port in _places(hosts, _PORT)]
        return redis.RedisCluster(startup_nodes=nodes, **settings)
    if not service:
        raise ValueError("the name of the master is missing")
    asking = {
        name.removeprefix("sentinel_"): settings.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in settings
    }
    sentinel = redis.sentinel.Sentinel(
        _places(hosts, _SENTINEL_PORT), sentinel_kwargs={**limits, "ssl": tls, **asking}, **settings
    )
    return sentinel.master_for(unquote(service))
