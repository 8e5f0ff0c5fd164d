"""Commands: ``flask session stats``, ``flask session purge``, ``flask session_cleanup``."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


@click.command("session_cleanup")
@with_appcontext
def session_cleanup() -> None:
    """Delete expired sessions (for a scheduler)."""
    _extension().purge()


def register(app: Flask, command: click.Command) -> None:
    """Add a command to the application's own; what has its name already stays."""
    if command.name not in app.cli.commands:
        app.cli.add_command(command)
