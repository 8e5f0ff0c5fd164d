"""Tests, and what they share."""

from __future__ import annotations

import os


def long_run_wanted() -> bool:
    """Whether full counts are asked for: CESSION_LONG=1 (make test-long)."""
    return os.environ.get("CESSION_LONG", "") not in {"", "0"}
