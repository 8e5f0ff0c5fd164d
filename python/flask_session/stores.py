"""Making interfaces and stores from a configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _core, config

if TYPE_CHECKING:
    from flask import Flask

    from .base import ServerSideSessionInterface

_COMMON = {
    "key_prefix": "SESSION_KEY_PREFIX",
    "use_signer": "SESSION_USE_SIGNER",
    "permanent": "SESSION_PERMANENT",
    "sid_length": "SESSION_ID_LENGTH",
    "serialization_format": "SESSION_SERIALIZATION_FORMAT",
    "cleanup_n_requests": "SESSION_CLEANUP_N_REQUESTS",
}


def make_interface(
    app: Flask,
    kind: str,
    settings: Mapping[str, Any],
    url: str | None,
    beside: bool = False,
    **common: Any,
) -> ServerSideSessionInterface:
    """An interface of this SESSION_TYPE.

    settings: the configuration. url: the place, where that is not in the settings. beside: it is
    for its store only, beside the application's own interface. common: instead of what the
    settings say.
    """
    options = {
        name: common[name] if name in common else config.value(settings, key)
        for name, key in _COMMON.items()
    }
    (argument, place), *others = config.ARGUMENTS[kind].items()
    options[argument] = url or settings.get(place)
    options.update((name, config.value(settings, key)) for name, key in others)
    module, name = config.BACKENDS[kind]
    interface_class = getattr(importlib.import_module(f".{module}", __package__), name)
    interface: ServerSideSessionInterface = interface_class.__new__(interface_class)
    interface._beside = beside
    interface.__init__(app, **options)  # type: ignore[misc]
    return interface


def open_beside(
    app: Flask, key: str, place: str | Mapping[str, Any], key_prefix: str | None = None
) -> tuple[ServerSideSessionInterface, _core.Store]:
    """The store that `place` names, with its prefix, and an interface that must live as long.

    place: a SESSION_TYPE, whose other keys are the application's; a URL; or a dict of
    configuration keys, which go before the application's. key: where it stands, for errors.
    SessionConfigError for what cannot be.
    """
    url, settings = None, dict(app.config)
    if isinstance(place, Mapping):
        if not place.keys() & {"SESSION_TYPE", "SESSION_URL"}:
            raise _core.SessionConfigError(f"{key} must name SESSION_TYPE or SESSION_URL")
        settings |= {"SESSION_TYPE": None, "SESSION_URL": None, **place}
        url = config.value(settings, "SESSION_URL")
        kind = config.kind_of(settings["SESSION_TYPE"], url)
    elif ":" in place:
        url = config.check_url(key, place)
        kind = config.kind_of(None, url)
    else:
        kind = config.kind_of(place, None, key)
    if kind in ("null", "custom", "memory"):
        reason = "no other process reads it" if kind == "memory" else "that is no store"
        raise _core.SessionConfigError(f"{key} cannot be {kind!r}: {reason}")
    common: dict[str, Any] = {"cleanup_n_requests": None}
    if key_prefix is not None:
        common["key_prefix"] = config.check("SESSION_KEY_PREFIX", key_prefix)
    interface = make_interface(app, kind, settings, url, beside=True, **common)
    return interface, interface._make_store(interface.key_prefix)
