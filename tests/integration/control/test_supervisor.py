"""The parent of all processes: keeps them running, takes them down, and takes them with it when it dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.control.supervisor import Child, Supervisor, bind, lock_home
from service.domain.errors import HomeUnusable, PortInUse, SettingInvalid

CHILD = """
import signal, sys, time
from pathlib import Path
from service.control.supervisor import leave_with_parent
folder, name, line = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def leave(number, frame):
    (folder / f"{name}.left").write_text(str(time.monotonic()))
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
leave_with_parent(line)
with (folder / f"{name}.pids").open("a") as file:
    import os
    file.write(f"{os.getpid()}\\n")
while True:
    time.sleep(0.05)
"""
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"


def child(folder: Path, name: str, *, last: bool = False) -> Child:
    return Child(name=name, argv=("-c", CHILD, str(folder), name, "{parent}"), last=last)


def until(seen: Callable[[], Any], *, within_s: float = 20) -> Any:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if found := seen():
            return found
        time.sleep(0.01)
    pytest.fail(f"not within {within_s} s")


def pids(folder: Path, name: str) -> list[int]:
    path = folder / f"{name}.pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def environ() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}


def watch(supervisor: Supervisor, act: Callable[[], None]) -> None:
    """Run the supervisor in this thread, as it wants for its signals, and `act` beside it."""
    failures: list[BaseException] = []

    def beside() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  told to the test below
            failures.append(error)
        finally:
            supervisor.stop()

    thread = threading.Thread(target=beside)
    thread.start()
    supervisor.run()
    thread.join()
    if failures:
        raise failures[0]


def test_a_dead_child_is_started_again_and_the_last_leaves_after_the_others(tmp_path: Path) -> None:
    supervisor = Supervisor([child(tmp_path, "one"), child(tmp_path, "two", last=True)], environ=environ())

    def act() -> None:
        first = until(lambda: pids(tmp_path, "one") and pids(tmp_path, "two") and pids(tmp_path, "one"))[0]
        os.kill(first, signal.SIGKILL)
        until(lambda: len(pids(tmp_path, "one")) == 2)

    watch(supervisor, act)
    left = {name: float((tmp_path / f"{name}.left").read_text()) for name in ("one", "two")}
    assert left["two"] > left["one"]
    assert not any(is_alive(pid) for name in ("one", "two") for pid in pids(tmp_path, name))


def test_a_child_that_does_not_leave_in_time_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(
        [Child(name="stubborn", argv=("-c", STUBBORN))], environ=environ(), grace_s=0.3, metrics=tmp_path
    )
    started: list[int] = []
    watch(supervisor, lambda: started.extend(until(lambda: list(supervisor.pids().values()))))
    assert not is_alive(started[0])


def test_children_leave_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom service.control.supervisor import Child, Supervisor\n"
        f"Supervisor([Child(name='one', argv=('-c', {CHILD!r}, {str(tmp_path)!r}, 'one', '{{parent}}'))],"
        " environ=os.environ).run()"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=environ()) as parent:
        pid = until(lambda: pids(tmp_path, "one"))[0]
        parent.kill()
        parent.wait()
    until(lambda: not is_alive(pid))


def test_a_port_in_use_names_the_port_and_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} .* RETRUE_PORT"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_this_machines_names_the_setting() -> None:
    with pytest.raises(SettingInvalid, match="RETRUE_HOST"):
        bind("203.0.113.7", 0)


def test_a_second_service_in_the_same_home_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with lock_home(tmp_path), pytest.raises(HomeUnusable, match=str(os.getpid())):
        lock_home(tmp_path)
    lock_home(tmp_path).close()
