"""Both stored formats under whole applications: every type comes back, either application reads
what the other stored, and requests of applications with different formats are merged.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import itertools
import math
import uuid
from types import SimpleNamespace

import flask
import pytest
from flask_session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from tests import examples
from tests.python.apps import legacy

FORMATS = ("msgpack", "json")


def make_app(path, format, **more):
    app = flask.Flask(__name__)
    app.config.update(
        SESSION_TYPE="sqlite",
        SESSION_SQLITE=str(path),
        SESSION_SERIALIZATION_FORMAT=format,
        SESSION_STRICT_TYPES=True,
        **more,
    )
    app.testing = True
    Session(app)
    app.box = box = SimpleNamespace(work=None)

    @app.get("/")
    def view():
        return str(box.work(flask.session))

    return app


def visit(app, work, cookie=None):
    """Do the work with the session; (its answer as text, the cookie from then on)"""
    before, app.box.work = app.box.work, work
    try:
        text, made = legacy.visit(app, "/", cookie)
    finally:
        app.box.work = before
    return text, made or cookie


def stored(app, cookie):
    return app.extensions["flask_session"].store.load(cookie)[0]


@pytest.fixture
def apps(tmp_path):
    return {format: make_app(tmp_path / "s.sqlite3", format) for format in FORMATS}


# ---- round trips --------------------------------------------------------------------------------

VALUES = {
    **legacy.VALUES,
    "complex": 1 - 2.5j,
    "bytearray": bytearray(b"\x00x"),
    "ordered": collections.OrderedDict([("b", 1), ("a", (2,))]),
    "huge": -(10**700),
    "nan": math.nan,
    "infinities": [math.inf, -math.inf],
    "keys": {1: "a", (1, "x"): "b", None: "c", 1.5: "d", b"x": "e", dt.date(2024, 1, 1): "f"},
    "looks tagged": {"__cession__tuple": [1], "__cession__": 2, "__cession__:1": 3},
    "fold": dt.datetime(2024, 10, 27, 2, 30, fold=1),
    "quiet nan": decimal.Decimal("NaN"),
}


@pytest.mark.parametrize(("written", "read"), list(itertools.product(FORMATS, FORMATS)))
def test_every_type_comes_back(apps, written, read):
    _, cookie = visit(apps[written], lambda session: session.update(VALUES))
    assert (stored(apps[written], cookie)[:1] == b"{") is (written == "json")
    found = {}
    visit(apps[read], found.update, cookie)
    assert found.pop("_permanent") is True
    assert legacy.show(found) == legacy.show(VALUES)
    # a read rewrites nothing, whatever it is stored as
    assert (stored(apps[read], cookie)[:1] == b"{") is (written == "json")
    visit(apps[read], lambda session: session.update(more=1), cookie)
    assert (stored(apps[read], cookie)[:1] == b"{") is (read == "json")
    found.clear()
    visit(apps[written], found.update, cookie)
    assert legacy.show(found) == legacy.show({**VALUES, "more": 1, "_permanent": True})


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=st.just(dt.timezone.utc))
    | st.timedeltas()
    | st.builds(Markup, st.text(st.characters(exclude_categories=["Cs"])))
)
keys = st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.tuples(st.dates())
values = st.recursive(
    scalars | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(scalars, max_size=4)
        | st.frozensets(scalars, max_size=4)
    ),
    max_leaves=10,
)
sessions = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda key: key not in ("_permanent", "__cession__")
    ),
    values,
    min_size=1,
    max_size=5,
)


def same(left, right):
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):
        return left == right and {type(item) for item in left} == {type(item) for item in right}
    return repr(left) == repr(right)


@pytest.mark.parametrize("format", FORMATS)
def test_anything_comes_back(tmp_path_factory, format):
    folder = tmp_path_factory.mktemp("formats")
    apps = [make_app(folder / "s.sqlite3", name) for name in (format, *FORMATS)]

    @settings(
        max_examples=examples(150, 2000),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sessions)
    def check(data):
        _, cookie = visit(apps[0], lambda session: session.update(data))
        for app in apps:
            found = {}
            visit(app, found.update, cookie)
            assert found.pop("_permanent") is True
            assert same(found, data)

    check()


# ---- merges -------------------------------------------------------------------------------------

MIXED = list(itertools.product(FORMATS, FORMATS, FORMATS))


def race(apps, initial, mine, theirs, outer, inner, start=None):
    """A session stored by one application, changed by a second while a third is at it; what is
    there in the end, and its cookie."""
    start = start or {"a": (1, 2), "b": {"set": {1, 2}}, "c": uuid.UUID(int=1)}
    _, cookie = visit(apps[initial], lambda session: session.update(start))

    def work(session):
        outer(session)
        visit(apps[theirs], inner, cookie)

    visit(apps[mine], work, cookie)
    found = {}
    for format in FORMATS:
        found[format] = {}
        visit(apps[format], found[format].update, cookie)
    assert same(found["msgpack"], found["json"])
    result = found["json"]
    result.pop("_permanent", None)
    return result


def put(**values):
    return lambda session: session.update(values)


def drop(*names):
    return lambda session: [session.pop(name) for name in names]


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_different_keys_are_merged(apps, initial, mine, theirs):
    result = race(
        apps, initial, mine, theirs, put(a=(3,), mine={1.5: b"x"}), put(theirs=decimal.Decimal(7))
    )
    assert result == {
        "a": (3,),
        "b": {"set": {1, 2}},
        "c": uuid.UUID(int=1),
        "mine": {1.5: b"x"},
        "theirs": decimal.Decimal(7),
    }
    assert apps[mine].extensions["flask_session"].stats()["events"]["conflict"] == 0


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_deletions_and_nested_changes_are_merged(apps, initial, mine, theirs):
    def nested(session):
        session["b"]["set"].add(3)

    assert race(apps, initial, mine, theirs, drop("a"), nested) == {
        "b": {"set": {1, 2, 3}},
        "c": uuid.UUID(int=1),
    }
    assert race(apps, initial, mine, theirs, nested, drop("a", "c")) == {"b": {"set": {1, 2, 3}}}


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_one_key_is_the_later_one_s(apps, initial, mine, theirs):
    result = race(apps, initial, mine, theirs, put(a=frozenset({1})), put(a=b"theirs"))
    assert result["a"] == frozenset({1})
    events = apps[mine].extensions["flask_session"].stats()["events"]
    assert events["conflict"] == 1


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_the_same_change_is_no_conflict(apps, initial, mine, theirs):
    result = race(apps, initial, mine, theirs, put(a={1: (2,)}), put(a={1: (2,)}))
    assert result["a"] == {1: (2,)}
    assert apps[mine].extensions["flask_session"].stats()["events"]["conflict"] == 0


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_emptying_wins(apps, initial, mine, theirs):
    assert race(apps, initial, mine, theirs, lambda session: session.clear(), put(x=1)) == {}
    assert race(apps, initial, mine, theirs, put(x=1), lambda session: session.clear()) == {}


@pytest.mark.parametrize(("initial", "mine", "theirs"), MIXED)
def test_regenerate_takes_over_what_was_written_meanwhile(apps, initial, mine, theirs):
    _, old = visit(apps[initial], put(a=(1,)))

    def work(session):
        session.regenerate()
        visit(apps[theirs], put(b={2}), old)

    _, new = visit(apps[mine], work, old)
    assert new != old
    found = {}
    visit(apps[theirs], found.update, new)
    assert found == {"a": (1,), "b": {2}, "_permanent": True}
    found.clear()
    visit(apps[theirs], found.update, old)
    assert found == {}


# ---- keys of the format's own -------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_the_reserved_key_cannot_be_set(apps, format):
    with pytest.raises(ValueError, match="'__cession__' is reserved"):
        visit(apps[format], lambda session: session.update({"__cession__": {"t": True}}))
    assert apps[format].extensions["flask_session"].stats()["create"] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_strict_types(apps, format):
    def work(session):
        session["deep"] = [collections.Counter("aa")]

    with pytest.raises(TypeError, match=r"session\['deep'\]\[0\]: .*Counter"):
        visit(apps[format], work)
    assert apps[format].extensions["flask_session"].stats()["create"] == 0
