"""Bringing all sessions of one store to another: the command ``flask session migrate``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _core, moving, stores
from .base import MsgSpecSerializer, ServerSideSessionInterface

if TYPE_CHECKING:
    from flask import Flask

#: Seconds for which a record that was read may be stored. Whoever logs out in the target leaves a
#: mark there for a minute, whoever gets a new id one for half a minute.
_FRESH_SECONDS = 10.0
_PATIENCE = 60.0  # for one operation: nobody waits for an answer
#: Lifetimes are counted from when they arrive: a record that took longer than this is corrected.
_PROMPT_SECONDS = 1.0
#: Outcomes of a record. "there": the target has one; "retired": a tombstone; "ended": it did so
#: meanwhile; the last two are listed by number.
OUTCOMES = ("copied", "there", "retired", "ended", "unreadable", "refused")


class Unreadable(Exception):
    """A value that is no session."""


class State:
    """How far a migration has come, in a file that is always whole: what it does not say was
    done is done again, which changes nothing.

    It holds no secrets but the source's cursor, which may be the key of a session: mode 0600, and
    gone when the migration is complete.
    """

    def __init__(self, path: Path, of: str) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "migration": of,
            "phase": "copy",
            "cursor": "",
            "seen": 0,
            **dict.fromkeys(OUTCOMES, 0),
            "numbers": {"unreadable": [], "refused": []},
        }
        with contextlib.suppress(FileNotFoundError):
            try:
                found = json.loads(path.read_text())
            except ValueError:
                raise _core.SessionConfigError(f"{path} is no state of a migration") from None
            if not isinstance(found, dict) or found.get("migration") != of:
                raise _core.SessionConfigError(
                    f"{path} is the state of another migration; --state names another file"
                )
            self.data = found

    def save(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(self.data, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Migration:
    """From one store to another.

    source, target: SESSION_TYPEs or URLs; SessionConfigError for what cannot be. move: with the
    protocol of SESSION_MIGRATE_FROM, which takes each session away from the source; else the
    source is left alone. state: the file, None: one in the instance folder.
    """

    def __init__(
        self,
        app: Flask,
        source: str,
        target: str,
        *,
        from_prefix: str | None = None,
        to_prefix: str | None = None,
        move: bool = False,
        state: Path | None = None,
        batch: int = 200,
    ) -> None:
        if source == target and from_prefix == to_prefix:
            raise _core.SessionConfigError("--from and --to are the same store")
        self._batch, self._move = batch, move
        self._lifetime_ms = moving.lifetime_ms(app)
        self._interface = app.session_interface
        # They own what their stores work with.
        here, self.source = stores.open_beside(app, "--from", source, from_prefix)
        there, self.target = stores.open_beside(app, "--to", target, to_prefix)
        self._kept = here, there
        if not self.source.capabilities & _core.CAP_LISTABLE:
            raise _core.SessionConfigError(
                f"a {self.source.name} store cannot list its sessions; SESSION_MIGRATE_FROM moves"
                " each one when it is next used"
            )
        self._by_key = self.source
        if self.source.capabilities & _core.CAP_HASHED_KEYS:
            self._open_hashed(here, there)
        if move:
            other = here._make_store(here.key_prefix)
            self.target = self.target.migrating(other, self._lifetime_ms)
        parts = [source, target, here.key_prefix, there.key_prefix, str(move)]
        of = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        default = Path(app.instance_path) / f"session-migrate-{of[:12]}.json"
        self.state = State(state or default, of)

    def _open_hashed(
        self, here: ServerSideSessionInterface, there: ServerSideSessionInterface
    ) -> None:
        """The source tells hashes of its keys: the target must have the same."""
        hashed, source = there._open_hashed_store(), here._open_hashed_store()
        if self._move or not hashed or not source or self.source.name != self.target.name:
            raise _core.SessionConfigError(
                f"a {self.source.name} store keeps hashes in the place of its keys, so its sessions"
                f" can be copied to another {self.source.name} store only; SESSION_MIGRATE_FROM"
                " moves each one when it is next used, to any store"
            )
        if here.key_prefix != there.key_prefix:
            raise _core.SessionConfigError(
                "the prefix of a hashed key cannot be changed: the prefixes must be the same"
            )
        self.target, self._by_key = hashed, source

    # -- one record -------------------------------------------------------------

    def _converted(self, value: bytes) -> bytes | None:
        """The value as this package writes it; None: it is a tombstone. Raises Unreadable."""
        own = self._interface
        serializer = own.serializer if isinstance(own, ServerSideSessionInterface) else None
        try:
            if serializer is None or isinstance(serializer, MsgSpecSerializer):
                name = "msgpack" if serializer is None else serializer.format
                made = _core.canonical(value, name)
                return made if _core.decode(made) else None
            assert isinstance(own, ServerSideSessionInterface)
            try:
                return value if own._decode(value) else None
            except ValueError:
                data = _core.decode(value)
                return own._encode(data) if data else None
        except (TypeError, ValueError, OverflowError):
            raise Unreadable from None

    def _ttl_ms(self, expires_at_ms: int | None) -> int:
        if expires_at_ms is None or expires_at_ms < 0:  # unknown, or never
            return self._lifetime_ms
        return expires_at_ms - time.time_ns() // 1_000_000

    def _bring(self, key: bytes, value: bytes, expires_at_ms: int | None) -> str:
        """One of OUTCOMES."""
        try:
            made = self._converted(value)
        except Unreadable:
            return "unreadable"
        ttl_ms = self._ttl_ms(expires_at_ms)
        if made is None:
            return "retired"
        if ttl_ms <= 0:
            return "ended"
        name: Any = key
        try:
            if self._move:
                return self._take(name)
            before = time.monotonic()
            done = self.target.create(name, made, ttl_ms, timeout=_PATIENCE)
            late = time.monotonic() - before > _PROMPT_SECONDS
            if done and late and self._ttl_ms(expires_at_ms) > 0:  # it lives longer by so much
                self.target.touch(name, made, b"", self._ttl_ms(expires_at_ms), timeout=_PATIENCE)
        except _core.SessionStoreError:
            # Too large for the target, perhaps. If it answers at all, it goes on without.
            self.target.load("cession-migrate-probe", timeout=_PATIENCE)
            return "refused"
        return "copied" if done else "there"

    def _take(self, name: Any) -> str:
        moved = self._moved()
        if self.target.load(name, timeout=_PATIENCE) is None:
            return "ended"
        if self._moved() > moved:
            return "copied"
        # A copy that lies in both: the target's is the one that is in use.
        self.source.remove(name, timeout=_PATIENCE)
        return "there"

    def _moved(self) -> int:
        moves = self.target.moves()
        return int(moves["moved"]) if moves else 0

    # -- all of them ------------------------------------------------------------

    def _scan(self, cursor: bytes) -> Iterator[tuple[bytes, list[tuple[bytes, bytes, int]]]]:
        """Batches, each with the cursor after it; b"" after the last."""
        while True:
            cursor, rows = self.source.scan(cursor, self._batch, timeout=_PATIENCE)
            yield cursor, rows
            if not cursor:
                return

    def copy(self) -> Iterator[int]:
        """Bring what is left, and save the state after each batch; gives the number of sessions
        seen so far."""
        data = self.state.data
        cursor = bytes.fromhex(data["cursor"])
        while data["phase"] == "copy":
            read_at = time.monotonic()
            following, rows = self.source.scan(cursor, self._batch, timeout=_PATIENCE)
            for key, value, expires in rows:
                name: Any = key
                outcome = "ended"
                if time.monotonic() - read_at < _FRESH_SECONDS:
                    outcome = self._bring(key, value, expires)
                else:
                    read_at = time.monotonic()
                    again = self._by_key.load(name, timeout=_PATIENCE)
                    if again is not None:
                        outcome = self._bring(key, again[0], again[2])
                data["seen"] += 1
                data[outcome] += 1
                if outcome in data["numbers"]:
                    data["numbers"][outcome].append(data["seen"])
                yield data["seen"]
            cursor = following
            data["cursor"] = cursor.hex()
            if not cursor:
                data["phase"] = "verify"
            self.state.save()

    def verify(self) -> Iterator[tuple[int, int]]:
        """Look for every session of the source in the target: (found, missing) so far."""
        found = missing = 0
        for _, rows in self._scan(b""):
            for key, value, expires in rows:
                try:
                    if self._converted(value) is None or self._ttl_ms(expires) < 1000:
                        continue
                except Unreadable:
                    continue
                name: Any = key
                if self._move:  # nothing should be left
                    missing += 1
                elif self.target.load(name, timeout=_PATIENCE) is not None:
                    found += 1
                else:
                    missing += 1
                yield found, missing

    def run(self, tell: Callable[[str], None], show: Callable[..., Any], verify: bool) -> bool:
        """All of it. tell: called with a line of text. show(iterator, label): a context manager
        that gives the iterator, with progress shown. Whether everything is in the target."""
        data = self.state.data
        if data["phase"] != "copy" or data["seen"]:
            tell(f"going on after {data['seen']} sessions")
        with show(self.copy(), "sessions") as steps:
            for _ in steps:
                pass
        outcomes = ", ".join(f"{data[name]} {name}" for name in OUTCOMES)
        tell(f"{data['seen']} sessions: {outcomes}")
        for name, numbers in data["numbers"].items():
            if numbers:
                tell(f"{name}, by number: {', '.join(map(str, numbers))}")
        found = missing = 0
        if verify:
            with show(self.verify(), "verified") as steps:
                for step in steps:
                    found, missing = step
            if self._move:
                tell(f"{missing} left in the source")
            else:
                tell(f"{found} found in the target, {missing} missing")
        self.state.remove()
        return not (missing or data["unreadable"] or data["refused"])
