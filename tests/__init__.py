"""Tests, and what they share."""

from __future__ import annotations

import os


def long_run_wanted() -> bool:
    """Whether full counts are asked for: CESSION_LONG=1 (make test-long)."""
    return os.environ.get("CESSION_LONG", "") not in {"", "0"}


def examples(usual: int, full: int) -> int:
    """How many made-up cases to try: full in a long run, a quarter of the usual number under
    sanitizers (CESSION_FEW=1), where each takes several times as long."""
    if long_run_wanted():
        return full
    return usual // 4 if os.environ.get("CESSION_FEW") else usual
