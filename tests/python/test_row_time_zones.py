"""The stored expiry of every row of tests/rows is a moment, wherever the application and the server
believe to be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tests
from tests.python.apps.zoned import LIFETIME
from tests.rows import ROWS, Row, leading, new_prefix, parameters
from tests.services import Service

pytestmark = pytest.mark.process

TOKYO, LOS_ANGELES = "Asia/Tokyo", "America/Los_Angeles"
ROOT = Path(tests.__file__).parents[1]


@pytest.fixture(params=parameters(leading))
def row(request: pytest.FixtureRequest, start_row: Any) -> Any:
    """With a server of its own where that can have a time zone."""
    service = getattr(ROWS[request.param], "service", Service)
    return start_row(request.param, own=service.set_time_zone is not Service.set_time_zone)


def visit(row: Row, prefix: str, zone: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """What an application in this zone sees of the sessions that another one wrote before."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.python.apps.zoned"],
        input=json.dumps({"row": [row.name, row.where, prefix], "before": before}),
        env={**os.environ, "TZ": zone, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def check(row: Row, expires: float | None, start: float, end: float, lifetime: int) -> None:
    if expires is not None:  # else the store does not tell
        slack = 1 + row.tick_ms / 1000
        assert start + lifetime - slack <= expires <= end + lifetime + slack


def test_stored_expiry_is_now_and_the_lifetime(row, long_run):
    """Written in one zone, read, touched and outlived in another one; the server is in that."""
    prefix = new_prefix()
    offsets = {TOKYO: {9 * 3600}, LOS_ANGELES: {-8 * 3600}}
    zones = [(TOKYO, LOS_ANGELES), (LOS_ANGELES, TOKYO)]
    if long_run:
        zones += [(TOKYO, TOKYO), (LOS_ANGELES, LOS_ANGELES), ("UTC", TOKYO), ("UTC", LOS_ANGELES)]
    before = None
    for zone, server_zone in zones:
        if hasattr(row, "server"):
            row.server.set_time_zone(server_zone)
        if before is not None:
            outlived = before["end"] + 1 + row.tick_ms / 1000
            time.sleep(max(0, outlived - time.time()))
        seen = visit(row, prefix, zone, before)
        assert seen["offset"] in offsets.get(zone, {0})
        told = row.stored_expiry(row.where, prefix + seen["usual"])
        check(row, told, seen["start"], seen["end"], LIFETIME)
        check(row, seen["expires"], seen["start"], seen["end"], LIFETIME)
        if before is not None:
            assert (seen["usual before"], seen["short before"]) == ("ann", None)
            told = row.stored_expiry(row.where, prefix + before["usual"])
            check(row, told, seen["start of touch"], seen["end of touch"], 10 * LIFETIME)
        before = seen
