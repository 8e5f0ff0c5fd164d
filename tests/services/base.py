"""Processes, free ports, waiting, installing: what every service needs.

A running service is described by `state.json` in its folder: the processes, each with its start
time (so that a later process of the same number is never taken for it), and the ports. Whoever
reads that file can use the service or end it; nothing else is ever ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

HOST = "127.0.0.1"

# What a test run may have set for its own Python and what no other program should inherit: a
# sanitizer's runtime, the package under test.
PRIVATE_VARIABLES = (
    "ASAN_OPTIONS",
    "LD_PRELOAD",
    "PYTHONMALLOC",
    "PYTHONPATH",
    "PYTHONHOME",
    "UBSAN_OPTIONS",
    "VIRTUAL_ENV",
)


class Unavailable(Exception):
    """This cannot be had on this machine; the text says why."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for programs that have nothing to do with the package under test."""
    environment = {k: v for k, v in os.environ.items() if k not in PRIVATE_VARIABLES}
    environment.update(extra or {})
    return environment


def free_port() -> int:
    """A TCP port that nobody listens on now. Another program may take it before its user binds."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def tcp_answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def process_start(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may contain anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether this very process lives, not a later one of the same number."""
    return process_start(pid) == started


def children(parent: int) -> list[tuple[int, int]]:
    """The processes that the threads of a process have started, each with its start."""
    numbers: list[str] = []
    for thread in Path(f"/proc/{parent}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            numbers += (thread / "children").read_text().split()
    found = [(int(number), process_start(int(number))) for number in numbers]
    return [(pid, started) for pid, started in found if started is not None]


def signal_processes(processes: Sequence[tuple[int, int]], number: signal.Signals) -> None:
    """To those that are still the ones that were started."""
    for pid, started in processes:
        if alive(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def end_processes(
    processes: Sequence[tuple[int, int]],
    seconds: float = 10,
    first: signal.Signals = signal.SIGTERM,
) -> None:
    """A first signal, and KILL to what is left after a while."""
    signal_processes(processes, first)
    signal_processes(processes, signal.SIGCONT)
    end = time.monotonic() + seconds
    while any(alive(*process) for process in processes) and time.monotonic() < end:
        time.sleep(0.02)
    signal_processes(processes, signal.SIGKILL)
    while any(alive(*process) for process in processes):
        time.sleep(0.02)


def wait_until(
    ready: Callable[[], bool], seconds: float, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Whether ready() became true in time; gives up at once when alive() is not."""
    end = time.monotonic() + seconds
    while not ready():
        if not alive() or time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _debian() -> str:
    """The code name of this Debian; empty on other systems."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return ""
    release = dict(line.partition("=")[::2] for line in lines)
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def _with_backports(sources: str, codename: str) -> str:
    """The text of an apt source of Debian's backports, from the machine's own sources in either
    format: the same place, another suite."""
    for paragraph in re.split(r"\n\s*\n", sources):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        fields = dict(line.partition(":")[::2] for line in lines if ":" in line)
        if codename in fields.get("Suites", "").split() and "deb" in fields.get("Types", ""):
            fields["Suites"] = f" {codename}-backports"
            return "".join(f"{name}:{value}\n" for name, value in fields.items())
    line = re.search(rf"^deb\s+((?:\[.*?\]\s+)?)(\S+)\s+{codename}\s", sources, re.M)
    if line is None:
        raise Unavailable(f"apt has no source of {codename}, so none of its backports")
    options = dict(word.partition("=")[::2] for word in line[1].strip("[] \t").split())
    signed = f"Signed-By: {options['signed-by']}\n" if "signed-by" in options else ""
    return f"Types: deb\nURIs: {line[2]}\nSuites: {codename}-backports\nComponents: main\n{signed}"


@contextlib.contextmanager
def _backports() -> Iterator[list[str]]:
    """Options of apt-get by which it knows Debian's backports as well; the machine's own list of
    sources stays as it is."""
    apt, codename = Path("/etc/apt"), _debian()
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.*"))]
    texts = {file: file.read_text() for file in files if file.is_file()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, text in texts.items():
            if file.parent != apt:
                (folder / file.name).write_text(text)
        added = _with_backports("\n\n".join(texts.values()), codename)
        (folder / "backports-of-the-tests.sources").write_text(added)
        yield ["-o", f"Dir::Etc::SourceParts={folder}"]


def require_command(command: str, *packages: str, backports: Sequence[str] = ()) -> str:
    """The path of a command; root installs its Debian packages, else Unavailable. backports: code
    names of those Debians whose backports have the packages."""
    found = shutil.which(command)
    if found:
        return found
    wanted = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"{command} is not installed (Debian: apt-get install {wanted})")
    install = ["install", "-y", "-qq", "--no-install-recommends", *packages]
    if _debian() in backports:
        with _backports() as options:
            release = ["-t", f"{_debian()}-backports"]
            _apt_get([*options, "update", "-qq"], wanted)
            _apt_get([*options, *install, *release], wanted)
    else:
        _apt_get(["update", "-qq"], wanted)
        _apt_get(install, wanted)
    found = shutil.which(command)
    if not found:
        raise Unavailable(f"{command} is missing after the installation of {wanted}")
    return found


def _apt_get(arguments: list[str], wanted: str) -> None:
    environment = clean_environment({"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"})
    done = subprocess.run(
        ["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"apt-get for {wanted}: {done.stderr.strip()[-300:]}")


class Service(ABC):
    """One server: its folder, its processes, its ports.

    A subclass gives `name`, `launch` (start the processes by `spawn` on `port(...)`) and `ready`.
    """

    name: ClassVar[str]
    seconds_to_start: ClassVar[float] = 20
    end_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """What ends the server at once in its orderly way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[tuple[int, int]] = []
        self.ports: dict[str, int] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    # ---- for subclasses

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that the server can be run at all; Unavailable when not."""

    @abstractmethod
    def launch(self) -> None:
        """Start the processes. Called again with new ports when one of them was taken meanwhile."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers."""

    @abstractmethod
    def exports(self) -> dict[str, str]:
        """Environment variables that say how to reach it, NAME_URL first of all."""

    def port(self, name: str = "tcp") -> int:
        """The port of this name, chosen when first asked for."""
        if name not in self.ports:
            self.ports[name] = free_port()
        return self.ports[name]

    def spawn(self, *command: str) -> None:
        log = self.folder / "log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        started = process_start(child.pid)
        if started is not None:
            self.processes.append((child.pid, started))

    # ---- life

    def alive(self) -> bool:
        for child in self._children:
            child.poll()
        return bool(self.processes) and all(
            process_start(pid) == started for pid, started in self.processes
        )

    def start(self, fixed_ports: bool = False) -> None:
        self.prepare()
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            self.processes = []
            self._children = []
            self.launch()
            if wait_until(self.ready, self.seconds_to_start, self.alive) and self.alive():
                self.save()
                return
            self.end()
            if not fixed_ports:
                self.ports = {}
        log = self.folder / "log"
        tail = log.read_text(errors="replace")[-500:] if log.exists() else ""
        raise Unavailable(f"{self.name} does not start: {tail}")

    def end(self) -> None:
        end_processes(self.processes, first=self.end_signal)
        for child in self._children:
            child.wait()
        self.processes = []
        self._children = []

    # ---- what a test does to an instance of its own

    def stop(self) -> None:
        """End the server in its orderly way; `restart` brings it back on the same port."""
        self.end()

    def kill(self) -> None:
        """End the server without a chance to say goodbye."""
        signal_processes(self.processes, signal.SIGKILL)
        self.end()

    def restart(self) -> None:
        """Start it again on the same port. What it had stored is kept only where the server
        keeps it."""
        if self.alive():
            self.end()
        self.start(fixed_ports=True)

    def pause(self) -> None:
        """Connections are accepted by the kernel and nothing answers."""
        signal_processes(self.processes, signal.SIGSTOP)
        wait_until(lambda: all(_stopped(pid) for pid, _ in self.processes), 5)

    def resume(self) -> None:
        signal_processes(self.processes, signal.SIGCONT)

    def set_time_zone(self, zone: str) -> bool:
        """Give it a time zone, such as Asia/Tokyo, by a restart where that is needed; False: it
        knows none."""
        return False

    def save(self) -> None:
        state = {"processes": self.processes, "ports": self.ports, "owner": owner()}
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.folder / "state.json")

    @classmethod
    def read(cls, folder: Path) -> Service | None:
        """The service that state.json in this folder describes, whether alive or not."""
        try:
            state = json.loads((folder / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        service = cls(folder)
        service.processes = [(int(pid), int(started)) for pid, started in state["processes"]]
        service.ports = {str(name): int(port) for name, port in state["ports"].items()}
        return service


def _stopped(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] in "Tt"


def owner() -> tuple[int, int]:
    pid = os.getpid()
    return pid, process_start(pid) or 0


ServiceType = TypeVar("ServiceType", bound=Service)


class Services:
    """A folder of services.

    `shared()` is the one of the command line, which outlives it; `private()` belongs to this
    process: it prefers what is up in the shared one, starts the rest for itself, and `close` ends
    what it started. What a private one left behind because its process was killed is ended by the
    next. A private one that is `offered` is used by the private ones of child processes as well:
    the processes of one test run have one server of each kind.
    """

    OFFER = "CESSION_RUN_SERVICES"

    def __init__(
        self, folder: Path, reuse: Services | None = None, run: Services | None = None
    ) -> None:
        self.folder = folder
        self._reuse = reuse
        self._run = run
        self._started: list[Service] = []
        self._count = 0

    @classmethod
    def shared(cls) -> Services:
        default = Path(tempfile.gettempdir()) / f"cession-services-{os.getuid()}"
        folder = Path(os.environ.get("CESSION_SERVICES", default))
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return cls(folder)

    @classmethod
    def private(cls) -> Services:
        shared = cls.shared()
        private = shared.folder / "private"
        private.mkdir(exist_ok=True)
        with shared._lock():
            _sweep(private)
            folder = Path(tempfile.mkdtemp(dir=private))
            folder.chmod(0o755)
            (folder / "owner.json").write_text(json.dumps(owner()))
        offered = os.environ.get(cls.OFFER)
        return cls(folder, shared, cls(Path(offered), shared) if offered else None)

    def offer(self) -> None:
        os.environ[self.OFFER] = str(self.folder)

    @contextlib.contextmanager
    def _lock(self, name: str = "") -> Iterator[None]:
        with (self.folder / f"lock{name}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self, kind: type[ServiceType]) -> ServiceType | None:
        """The running service of this kind, if there is one."""
        service = kind.read(self.folder / kind.name)
        if service is not None and service.alive():
            assert isinstance(service, kind)
            return service
        return None

    def start(self, kind: type[ServiceType]) -> ServiceType:
        """The service of this kind, started when it is not up."""
        if self._run is not None:
            return self._run.start(kind)
        with self._lock(f"-{kind.name}"):
            found = self.find(kind) or (self._reuse.find(kind) if self._reuse else None)
            if found is not None:
                return found
            shutil.rmtree(self.folder / kind.name, ignore_errors=True)
            service = kind(self.folder / kind.name)
            service.start()
            self._started.append(service)
            return service

    def own(self, service_type: Callable[[Path], ServiceType]) -> ServiceType:
        """One more instance, for one test alone; `service_type` gets its folder."""
        with self._lock():
            self._count += 1
            service = service_type(self.folder / f"own-{self._count}")
            service.start()
            self._started.append(service)
            return service

    def stop(self, kind: type[Service]) -> None:
        with self._lock(f"-{kind.name}"):
            service = kind.read(self.folder / kind.name)
            if service is not None:
                service.end()
            shutil.rmtree(self.folder / kind.name, ignore_errors=True)

    def close(self) -> None:
        """End what was started in this folder and remove it."""
        for service in reversed(self._started):
            service.end()
        self._started = []
        _end_recorded(self.folder)


def _sweep(private: Path) -> None:
    for folder in private.iterdir():
        try:
            pid, started = json.loads((folder / "owner.json").read_text())
        except (OSError, ValueError):
            continue
        if process_start(pid) == started:
            continue
        _end_recorded(folder)


def _end_recorded(folder: Path) -> None:
    for state in folder.glob("*/state.json"):
        try:
            recorded = json.loads(state.read_text())["processes"]
        except (OSError, ValueError, KeyError):
            continue
        end_processes([(int(p), int(s)) for p, s in recorded])
    shutil.rmtree(folder, ignore_errors=True)
