"""The end of the interpreter clears modules and objects in an order of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTER = """
import gc, sys
from flask_session import _core

class Adapter:
    name, capabilities = "sample", 0
    def load(self, *arguments): return None
    create = replace = touch = remove = load
    def close(self): pass
"""

# A cycle through the extension module: the collector clears the module's state and the store in
# one sweep, in either order.
CYCLE = """
class Holder: pass

holder = Holder()
holder.me, holder.core, holder.store = holder, _core, _core.Store.wrap(Adapter())
_core.holder = holder
for name in [name for name in sys.modules if name.startswith("flask_session")]:
    del sys.modules[name]
del holder, _core
gc.collect()
"""

APPLICATION = """
import flask
from flask_session.base import ServerSideSessionInterface

class Interface(ServerSideSessionInterface):
    def _open_store(self, key_prefix):
        return _core.Store.wrap(Adapter())

app = flask.Flask("app")
app.session_interface = Interface(app)
app.keep = app
with app.test_request_context():
    flask.session["a"] = 1
    kept = flask.session._get_current_object()
"""


@pytest.mark.parametrize("code", [CYCLE, APPLICATION, APPLICATION + CYCLE])
def test_stores_that_go_with_the_module(code):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", ADAPTER + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
