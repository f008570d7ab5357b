"""What this machine has to give: memory that is free, memory that this process held at its most.

Reads the operating system's own numbers; where it gives none the answer is None. Knows nothing of models.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(device: str = "cpu") -> int | None:
    """Bytes that this process could still take on a device; a container's limit counts as the machine's."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0]) if torch.cuda.is_available() else None
    found = [value for value in (_available(), _left_in_group()) if value is not None]
    return min(found, default=None)


def held_memory() -> int | None:
    """Bytes of RAM that this process holds now."""
    return _status("VmRSS:")


def forget_peak(device: str = "cpu") -> None:
    """Let `peak_memory` count from now, where the system can do that; else it counts from the process's start."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(torch.device(device))
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: str = "cpu") -> int | None:
    """Bytes that this process held at its most: of the GPU's memory on cuda, else of RAM."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_reserved(torch.device(device)))
    if (peak := _status("VmHWM:")) is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int | None:
    return _line(PROC / "self" / "status", name)


def _available() -> int | None:
    if (found := _line(PROC / "meminfo", "MemAvailable:")) is not None:
        return found
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_group() -> int | None:
    """What a container's limit leaves (cgroup v2, then v1); files that the kernel can drop do not count as used."""
    for limit, used, stat, name in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        most, now = _number(CGROUP / limit), _number(CGROUP / used)
        if most is not None and now is not None:
            return max(0, most - now + (_line(CGROUP / stat, name) or 0))
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _line(path: Path, name: str) -> int | None:
    """The number behind a name at the start of a line, in bytes (a unit of kB is counted)."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        parts = line.split()
        if parts and parts[0] == name and len(parts) > 1 and parts[1].isdigit():
            return int(parts[1]) * (1024 if parts[2:] == ["kB"] else 1)
    return None
