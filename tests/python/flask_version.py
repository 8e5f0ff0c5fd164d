"""Which Flask the tests run with, and what follows from it."""

from __future__ import annotations

import importlib.metadata

FLASK = tuple(int(part) for part in importlib.metadata.version("flask").split(".")[:3])

LATE = FLASK >= (3, 1, 3)
"""Since then Flask sets `accessed` before it hands a session out; before, loading is never late: a
session is loaded with every request that brings an id."""
