"""What adapters over client objects have in common: getting hold of a client and judging it."""

from __future__ import annotations

import importlib
import inspect
import time
import warnings
from collections import OrderedDict
from typing import Any

from . import _core, config

_SLOW_SECONDS = 10.0
_REMEMBERED_MAX = 10_000


def require(module: str, extra: str) -> Any:
    """The imported module; SessionConfigError that names the extra when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise _core.SessionConfigError(
            f'SESSION_TYPE = "{extra}" needs the Python package {package}:'
            f" pip install 'cession[{extra}]'"
        ) from error


def given(client: Any) -> Any:
    """The client; a function without arguments, or a class, is called for it."""
    return client() if inspect.isroutine(client) or isinstance(client, type) else client


def check_methods(key: str, accepted: str, client: Any, *names: str) -> None:
    """Refuse a client that has not all these methods, or whose methods are coroutines."""
    asynchronous = "asyncio" in type(client).__module__.split(".") or any(
        inspect.iscoroutinefunction(getattr(client, name, None)) for name in names
    )
    if asynchronous:
        raise _core.SessionConfigError(f"{key} is an asyncio client, but it must be {accepted}")
    if not all(callable(getattr(client, name, None)) for name in names):
        config.refuse(key, accepted, client)


def warn_if_slow(key: str, timeout: float | None, tries: int | None, advice: str) -> None:
    """A client keeps its own timeouts; say so once if a dead server would hold requests up.

    timeout: seconds of one attempt, None for no limit. tries: attempts, None for endless.
    advice: what to set on the client.
    """
    if timeout is None:
        text = f"the client in {key} has no timeout: {advice}"
    elif tries is None or timeout * tries > _SLOW_SECONDS:
        text = (
            f"the client in {key} may wait {timeout:g} s in each of"
            f" {'endless' if tries is None else tries} attempts before a request fails: {advice}"
        )
    else:
        return
    warnings.warn(text, UserWarning, stacklevel=2)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def whole_seconds(ttl_ms: int) -> int:
    """The lifetime for a store that counts whole seconds, some from the start of the current
    one: never shorter than what was asked for."""
    now = now_ms()
    return -(-(now + ttl_ms) // 1000) - now // 1000


class Expiries:
    """When records that this process wrote expire, for a store that cannot tell. Bounded; of a
    key that is not known nothing is said, so a touch is due."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()

    def get(self, key: str) -> int | None:
        return self._known.get(key)

    def remember(self, key: str, ttl_ms: int) -> None:
        self._known[key] = now_ms() + ttl_ms
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED_MAX:
            try:
                self._known.popitem(last=False)
            except KeyError:  # another thread was first
                break

    def forget(self, key: str) -> None:
        self._known.pop(key, None)
