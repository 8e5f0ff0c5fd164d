"""Commands: ``flask session stats``, ``purge`` and ``migrate``, ``flask session_cleanup``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

if TYPE_CHECKING:
    from flask import Flask

    from .extension import Extension

session_group = AppGroup("session", help="Look after the stored sessions.")


def _extension() -> Extension:
    from .extension import Extension

    found = current_app.extensions.get("flask_session")
    # An interface that was assigned without Session has no extension.
    return found if isinstance(found, Extension) else Extension(current_app.session_interface)


@session_group.command("stats")
def stats() -> None:
    """Show the store and what this process asked of it."""
    for name, value in _extension().stats().items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        click.echo(f"{name}: {value}")


@session_group.command("purge")
def purge() -> None:
    """Delete expired sessions."""
    click.echo(f"{_extension().purge()} expired sessions deleted")


_LINE_EACH = 10_000


@contextlib.contextmanager
def _progress(steps: Iterable[Any], label: str) -> Iterator[Iterable[Any]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if sys.stdout.isatty():
        with click.progressbar(steps, label=label, show_pos=True) as bar:
            yield bar
        return

    def with_lines() -> Iterator[Any]:
        for count, step in enumerate(steps, 1):
            if count % _LINE_EACH == 0:
                click.echo(f"{count} {label}")
            yield step

    yield with_lines()


@session_group.command("migrate")
@click.option("--from", "source", required=True, metavar="STORE", help="Where the sessions are.")
@click.option("--to", "target", required=True, metavar="STORE", help="Where they go.")
@click.option("--from-prefix", metavar="TEXT", help="SESSION_KEY_PREFIX there, if it is another.")
@click.option("--to-prefix", metavar="TEXT", help="SESSION_KEY_PREFIX there, if it is another.")
@click.option("--move", is_flag=True, help="Take them away from where they are, one by one.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that says how far it came (default: one in the instance folder).",
)
@click.option("--batch", type=click.IntRange(1, 10_000), default=200, show_default=True)
@click.option("--verify/--no-verify", default=True, help="Look for each one in the target.")
def migrate(source: str, target: str, verify: bool, **options: Any) -> None:
    """Bring all sessions from one store to another.

    STORE is a SESSION_TYPE, whose other settings are the application's, or a URL. What the target
    has already is left alone, so it may be run again, and goes on where it was broken off. While
    the site runs with SESSION_MIGRATE_FROM, use --move.
    """
    from ._core import SessionConfigError, SessionStoreError
    from .migrate import Migration

    try:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        complete = Migration(app, source, target, **options).run(click.echo, _progress, verify)
    except (SessionConfigError, SessionStoreError) as error:
        raise click.ClickException(str(error)) from error
    if not complete:
        raise SystemExit(1)


@click.command("session_cleanup")
@with_appcontext
def session_cleanup() -> None:
    """Delete expired sessions (for a scheduler)."""
    _extension().purge()


def register(app: Flask, command: click.Command) -> None:
    """Add a command to the application's own; what has its name already stays."""
    if command.name not in app.cli.commands:
        app.cli.add_command(command)
