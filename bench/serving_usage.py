"""What a server's processes use, read from /proc: processor time, memory. Found by a mark in their environment."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["MARK", "cpu_s", "memory_mib", "processes"]

MARK = "BENCH_SERVING_MARK"
"""A server may put its processes into sessions of their own; what they inherit in any case is the environment."""
PROC = Path("/proc")


def processes(mark: str) -> list[int]:
    """Return the processes that carry `mark` and have not ended."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0") and _state(entry) not in "ZX":
                found.append(int(entry.name))
    return found


def cpu_s(mark: str) -> float:
    """Return the processor seconds that they and their ended children have used."""
    ticks = 0
    for pid in processes(mark):
        with suppress(OSError):
            ticks += sum(map(int, _fields(PROC / str(pid))[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(mark: str) -> float:
    """Return their proportional set size, or the resident one where that is not to be read."""
    total = 0
    for pid in processes(mark):
        with suppress(OSError):
            total += _size_kib(PROC / str(pid))
    return total / 1024


def _size_kib(entry: Path) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with suppress(OSError):
            for line in (entry / name).read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1])
    return 0


def _fields(entry: Path) -> list[str]:
    """Return the fields of ``stat`` after the command, which may hold blanks and brackets."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def _state(entry: Path) -> str:
    return _fields(entry)[0]
