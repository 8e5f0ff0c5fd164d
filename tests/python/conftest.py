"""What the Python tests share.

NOT RUN: a test that cannot be run here (no such server, no such Python) says so by
`not_run(reason)`. It is a skip, printed in a table at the end, and with CI=true in the environment
a failure: nothing that was left out counts as passed.

CESSION_LONG=1 asks for the full counts (`long_run`).
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests import long_run_wanted
from tests.rows import ROWS, Row, parameters
from tests.services import RedisService, Service, Services, Unavailable, venvs
from tests.services.base import ServiceType, clean_environment
from tests.services.base import free_port as find_free_port
from tests.services.proxy import CountingProxy
from tests.services.web import Browser, FlaskRun, Gunicorn, WebServer

CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
NOT_RUN = "not_run"

# ---- NOT RUN ------------------------------------------------------------------------------------

_rows: list[tuple[str, str]] = []


def _reason(longrepr: object) -> str:
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    return str(longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report.longrepr)
        report.user_properties.append((NOT_RUN, reason))
        if CI:
            report.outcome = "failed"
            report.longrepr = f"NOT RUN: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.skipped:
        reason = _reason(report.longrepr)
        _rows.append((report.nodeid, reason))
        if CI:
            report.outcome = "failed"
            report.longrepr = f"NOT RUN: {reason}"
    return report


def pytest_runtest_logreport(report):
    _rows.extend((report.nodeid, value) for key, value in report.user_properties if key == NOT_RUN)


def pytest_terminal_summary(terminalreporter):
    if not _rows:
        terminalreporter.write_line("NOT RUN: none")
        return
    terminalreporter.section("NOT RUN")
    width = max(len(name) for name, _ in _rows)
    for name, reason in _rows:
        terminalreporter.write_line(f"{name:<{width}}  {reason}")


@pytest.fixture(scope="session")
def not_run() -> Callable[[str], NoReturn]:
    """not_run(reason): this test cannot be run here."""
    return _not_run


def _not_run(reason: object) -> NoReturn:
    pytest.skip(str(reason))


# ---- the run ------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not long_run_wanted():
        config.hook.pytest_deselected(
            items=[one for one in items if one.get_closest_marker("full")]
        )
        items[:] = [one for one in items if not one.get_closest_marker("full")]


def pytest_report_header() -> list[str]:
    from importlib.metadata import version

    import flask_session

    return [
        f"package: cession {version('cession')} from {Path(flask_session.__file__).parent}",
        f"with: {platform.python_implementation()} {platform.python_version()}, "
        f"Flask {version('flask')}, Werkzeug {version('werkzeug')}",
    ]


@pytest.fixture(scope="session")
def long_run() -> bool:
    """Whether full counts are asked for (make test-long)."""
    return long_run_wanted()


# ---- servers ------------------------------------------------------------------------------------

_offered: list[Services] = []


def pytest_configure(config: pytest.Config) -> None:
    # Several processes (xdist): this one, which runs no tests, offers them its servers.
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        _offered.append(Services.private())
        _offered[0].offer()


def pytest_unconfigure() -> None:
    while _offered:
        _offered.pop().close()


class ServicesOrNotRun(Services):
    """Where a server cannot be had, the test that asks for it says NOT RUN and why."""

    def start(self, kind: type[ServiceType]) -> ServiceType:
        try:
            return super().start(kind)
        except Unavailable as reason:
            _not_run(reason)

    def own(self, service_type: Callable[[Path], ServiceType]) -> ServiceType:
        try:
            return super().own(service_type)
        except Unavailable as reason:
            _not_run(reason)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """start(kind): a server that all tests share. own(kind): one of this test alone."""
    running = ServicesOrNotRun.private()
    yield running
    running.close()


@pytest.fixture(scope="session")
def redis_server(services: Services) -> RedisService:
    """A Redis that all tests share: `.url`, `.acl_url`, `.unix_url`, `.port()`, `.socket_path`.

    Use keys of your own; for counting, stopping or flushing take `redis_private`.
    """
    return services.start(RedisService)


class OwnServers:
    """One server of each kind for tests that stop, freeze and configure it, one after the other."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._servers: dict[type[Service], Service] = {}

    def own(self, kind: type[Service]) -> Service:
        if kind not in self._servers:
            self._servers[kind] = self._services.own(kind)
        server = self._servers[kind]
        # What a test left behind that failed.
        server.resume()
        if not server.alive():
            server.restart()
        return server


@pytest.fixture(scope="session")
def start_row(services: Services) -> Callable[..., Row]:
    """start_row(name, own=False): a row of tests/rows with its server, which other tests use as
    well; an `own` one is up and may be stopped, frozen and configured."""
    own_servers: Any = OwnServers(services)

    def start(name: str, own: bool = False) -> Row:
        return ROWS[name](own_servers if own else services, own)

    return start


@pytest.fixture(scope="module", params=parameters())
def row(request: pytest.FixtureRequest, start_row: Callable[..., Row]) -> Row:
    """Every row of tests/rows, with a server that other tests use as well."""
    return start_row(request.param)


@pytest.fixture
def redis_private(services: Services) -> Iterator[Callable[..., RedisService]]:
    """redis_private(**settings): a Redis of this test alone, to `.stop()`, `.kill()`, `.restart()`,
    `.pause()` (SIGSTOP) and `.resume()`. Settings are lines of redis.conf, `_` for `-`."""
    made: list[RedisService] = []

    def make(**settings: str) -> RedisService:
        lines = {name.replace("_", "-"): value for name, value in settings.items()}
        server = services.own(lambda folder: RedisService(folder, lines))
        made.append(server)
        return server

    yield make
    for server in made:
        server.end()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """free_port(): a port that nobody listens on."""
    return find_free_port


@pytest.fixture
def counting_proxy() -> Iterator[Callable[[int], CountingProxy]]:
    """counting_proxy(port): a proxy in front of 127.0.0.1:port; see CountingProxy."""
    made: list[CountingProxy] = []

    def make(port: int) -> CountingProxy:
        proxy = CountingProxy(port)
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        proxy.close()


# ---- processes ----------------------------------------------------------------------------------


@pytest.fixture
def forked() -> Iterator[Callable[..., Any]]:
    """forked(function): our end of a pipe to a forked process, which runs function(its end) and has
    to come to a good end. Nothing that it sends may take a minute."""
    context = multiprocessing.get_context("fork")
    made: list[Any] = []

    def fork(function: Callable[[Any], None]) -> Any:
        ours, theirs = context.Pipe()
        process = context.Process(target=function, args=(theirs,))
        made.append(process)
        with warnings.catch_warnings():
            # threads and fork: as gunicorn does
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        assert ours.poll(60)
        return ours

    yield fork
    for process in made:
        process.join(60)
        assert process.exitcode == 0


# ---- web servers --------------------------------------------------------------------------------


@pytest.fixture
def web_servers(tmp_path: Path) -> Iterator[Callable[..., WebServer]]:
    made: list[WebServer] = []

    def make(
        kind: type[WebServer],
        app: str,
        source: str | None,
        folder: Path | None,
        options: Mapping[str, object],
    ) -> WebServer:
        home = folder or tmp_path / f"web{len(made)}"
        home.mkdir(parents=True, exist_ok=True)
        if source is not None:
            module = app.partition(":")[0]
            (home / f"{module}.py").write_text(source)
        server = kind(home, app, **options)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def gunicorn_app(web_servers: Callable[..., WebServer]) -> Callable[..., Gunicorn]:
    """gunicorn_app("app:app", source=..., folder=..., workers=2, worker_class="sync", threads=1,
    preload=False, env={}, arguments=[]): gunicorn on a free port, every worker has loaded the
    application. `source` is written as the module; `folder` is where it runs (a new one). See
    Gunicorn: `.url`, `.worker_pids()`, `.restart()`, `.stop()`, `.kill()`, `.log()`."""

    def make(
        app: str = "app:app",
        *,
        source: str | None = None,
        folder: Path | None = None,
        **options: object,
    ) -> Gunicorn:
        server = web_servers(Gunicorn, app, source, folder, options)
        assert isinstance(server, Gunicorn)
        return server

    return make


@pytest.fixture
def flask_run(web_servers: Callable[..., WebServer]) -> Callable[..., FlaskRun]:
    """flask_run("app", source=..., folder=..., env={}, arguments=[]): under `flask run`."""

    def make(
        app: str = "app",
        *,
        source: str | None = None,
        folder: Path | None = None,
        **options: object,
    ) -> FlaskRun:
        server = web_servers(FlaskRun, app, source, folder, options)
        assert isinstance(server, FlaskRun)
        return server

    return make


@pytest.fixture
def browser() -> Callable[[WebServer | str], Browser]:
    """browser(server or URL): a client that keeps cookies."""

    def make(site: WebServer | str) -> Browser:
        return Browser(site if isinstance(site, str) else site.url)

    return make


# ---- other Pythons ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def predecessor() -> Callable[[str], str]:
    """predecessor(name): the Python executable of a pinned virtualenv: fs08, fs2 (the package's
    predecessors), fs08-cachelib0.9, fs08-cachelib0.13; flask23, flask30, flask312 (other Flasks,
    for run_python(..., cession=True))."""

    def find(name: str) -> str:
        try:
            return venvs.python(name)
        except Unavailable as reason:
            _not_run(reason)

    return find


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """run_python(python, code, *arguments, cession=False, env={}, input=None): what the code prints
    in another Python. With cession=True it can import the package (same CPython version)."""

    def run(
        python: str,
        code: str,
        *arguments: str,
        cession: bool = False,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 120,
    ) -> str:
        environment = clean_environment(env)
        if cession:
            import flask_session

            # Only the package, not what else lies in its folder (another Flask).
            site = tmp_path / "cession-site"
            site.mkdir(exist_ok=True)
            link = site / "flask_session"
            if not link.is_symlink():
                link.symlink_to(Path(flask_session.__file__).parent)
            environment["PYTHONPATH"] = str(site)
            for name in ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYTHONMALLOC"):
                if name in os.environ:
                    environment[name] = os.environ[name]
        command: Sequence[str] = [python, "-c", code, *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


_RUN_TESTS = """
import sys
from importlib.metadata import version
root, site, library, *options = sys.argv[1:]
sys.path.insert(0, root)
sys.path.append(site)  # behind the virtualenv's own packages: its library is the one that counts
import pytest
print(library, version(library))
sys.exit(pytest.main([
    "-c", root + "/pyproject.toml", "--rootdir", root, "-p", "no:cacheprovider", "-q", *options
]))
"""


@pytest.fixture
def run_tests(
    predecessor: Callable[[str], str], run_python: Callable[..., str]
) -> Callable[..., None]:
    """run_tests(virtualenv, library, version, *options, env={}, timeout=120): pytest with these
    options passes where the virtualenv has this version of the library."""
    root = Path(__file__).resolve().parents[2]
    site = Path(pytest.__file__).resolve().parents[1]

    def run(name: str, library: str, version: str, *options: str, **more: Any) -> None:
        arguments = [str(root), str(site), library, *options]
        output = run_python(predecessor(name), _RUN_TESTS, *arguments, cession=True, **more)
        assert output.startswith(f"{library} {version}")
        assert re.search(r"^\d{2,} passed, \d+ deselected", output, re.MULTILINE), output[-3000:]
        assert "NOT RUN: none" in output

    return run


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter that runs the tests."""
    return sys.executable
