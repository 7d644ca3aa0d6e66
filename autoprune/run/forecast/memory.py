"""The memory that there is, and the memory that a process holds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

VERSIONS = (  # of groups of processes: the folder, the files with the limit and the use, and the controller's name
    ("sys/fs/cgroup", ("memory.max", "memory.current"), ""),
    ("sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "memory"),
)


def available_bytes(root: Path = Path("/")) -> int:
    """The bytes that processes on this machine, and in this group of processes, can still allocate.

    `root` is the folder that the system's files are read from.
    """
    found = [_of_machine(root / "proc/meminfo")]
    for folder, (limit, used) in _groups(root):
        most, now = _number(folder / limit), _number(folder / used)
        if most is not None and now is not None:
            found.append(most - now + _reclaimable(folder / limit))
    return max(0, min(found))


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """The folders of this process's group, and of the group that a container takes for the whole machine."""
    listed = root / "proc/self/cgroup"
    for line in listed.read_text().splitlines() if listed.exists() else []:
        _, controllers, own = line.split(":", 2)
        for within, files, wanted in VERSIONS:
            if wanted in controllers.split(","):
                yield root / within / own.lstrip("/"), files
                yield root / within, files


def resident_bytes() -> int:
    """The memory that this process holds now; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def disk_bytes() -> int:
    """The free bytes of the folder for temporary files."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _of_machine(meminfo: Path) -> int:
    """What the machine has available; all of its memory where the system says no more."""
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _reclaimable(limit: Path) -> int:
    """The bytes of files in memory, which the system drops where it needs room."""
    stat = limit.with_name("memory.stat")
    lines = stat.read_text().split("\n") if stat.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.split(" ")[0] in ("inactive_file", "total_inactive_file"))


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, as for a group without a limit."""
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None
