"""The limits of the cgroups that this process is in: memory, processors, processes.

A process lies in one cgroup of each hierarchy, and the limits of all cgroups above it hold as well.  Version
2 has one hierarchy, version 1 one for each controller; a machine may have both.  Where they are is read from
``/proc/self/mountinfo``: in a container the mount may show only the container's own part of the tree, while
``/proc/self/cgroup`` names the whole path (cgroups(7), cgroup_namespaces(7)).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")
_USUAL = Path("/sys/fs/cgroup")
_VERSION_2 = ""  # in place of a controller's name, as /proc/self/cgroup has it
_NO_LIMIT = 1 << 62  # version 1 says a number just below 2**63


def memory_room() -> int | None:
    """Return the bytes that this process may still take in its cgroups; None if they have no limit."""
    rooms = [*_rooms_of_version_2(), *_rooms_of_version_1()]
    return max(0, min(rooms)) if rooms else None


def processors() -> float | None:
    """Return how many processors' time this process may use, such as 1.5; None without a limit."""
    return min([*_quotas_of_version_2(), *_quotas_of_version_1()], default=None)


def most_processes() -> int | None:
    """Return how many processes and threads a cgroup of this process may have; None without a limit."""
    found = [read_number(group / "pids.max") for name in ("pids", _VERSION_2) for group in _cgroups(name)]
    return min((number for number in found if number is not None), default=None)


def read_field(path: Path, name: str) -> int | None:
    """Return the number that follows ``name`` in a file of names and numbers, or None."""
    for words in map(str.split, _text(path).splitlines()):
        if words[:1] == [name] and len(words) > 1 and words[1].isdecimal():
            return int(words[1])
    return None


def read_number(path: Path) -> int | None:
    """Return the number in a file, or None if there is no file or it says 'max' (no limit)."""
    try:
        return int(_text(path))
    except ValueError:
        return None


def _rooms_of_version_2() -> Iterator[int]:
    for group in _cgroups(_VERSION_2):
        used = read_number(group / "memory.current")
        for name in ("memory.max", "memory.high"):  # beyond "high" the kernel slows a process to a halt
            limit = read_number(group / name)
            if limit is not None and used is not None:
                yield limit - used + _droppable(group, "inactive_file")


def _rooms_of_version_1() -> Iterator[int]:
    for group in _cgroups("memory"):
        limit, used = (read_number(group / f"memory.{name}_in_bytes") for name in ("limit", "usage"))
        if limit is not None and used is not None and limit < _NO_LIMIT:
            yield limit - used + _droppable(group, "total_inactive_file")


def _droppable(group: Path, name: str) -> int:
    """Return the page cache of a group that the kernel drops before it kills: that counts as free."""
    return read_field(group / "memory.stat", name) or 0


def _quotas_of_version_2() -> Iterator[float]:
    for group in _cgroups(_VERSION_2):
        quota, _, period = _text(group / "cpu.max").strip().partition(" ")  # "max 100000" is no limit
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _quotas_of_version_1() -> Iterator[float]:
    for group in _cgroups("cpu"):
        quota, period = (read_number(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota is not None and period and quota > 0:  # -1 is no limit
            yield quota / period


# ---- where they are --------------------------------------------------------------------------


def _cgroups(controller: str) -> list[Path]:
    """Return the folders of this process's cgroup and of all above it, in a controller's hierarchy."""
    path = next((path for names, path in _memberships() if controller in names), None)
    if path is None:
        return []
    mounts = [*_mounts(controller), (PurePosixPath("/"), _USUAL / controller)]
    folders = [folder for root, point in mounts for folder in _upwards(path, root, point)]
    return list(dict.fromkeys(folders))


def _memberships() -> Iterator[tuple[list[str], PurePosixPath]]:
    """Yield controllers and path of each cgroup that this process is in."""
    for line in _text(_PROC / "cgroup").splitlines():
        names, found, path = line.partition(":")[2].partition(":")
        if found:
            yield names.split(","), PurePosixPath(path)


def _mounts(controller: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the root within the hierarchy, and the mount point, of each mount of a controller's hierarchy."""
    for line in _text(_PROC / "mountinfo").splitlines():
        place, _, system = line.partition(" - ")
        fields, (kind, options) = place.split(), [*system.split(), "", "", ""][0:3:2]
        of_version_1 = kind == "cgroup" and controller in options.split(",")
        if len(fields) > 4 and (of_version_1 or (kind == "cgroup2" and controller == _VERSION_2)):
            yield PurePosixPath(fields[3]), Path(fields[4])


def _upwards(path: PurePosixPath, root: PurePosixPath, point: Path) -> Iterator[Path]:
    """Yield the folder of the cgroup ``path``, and those above it up to the mount ``point``."""
    inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    if ".." in inside.parts or inside.is_absolute():  # outside of this namespace: only its top can be seen
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield point / part


def _text(path: Path) -> str:
    """Return a file's content, nothing if it cannot be read."""
    try:
        # Not read_text: that may import a codec, for which there may be no file or memory left.
        return path.read_bytes().decode("ascii", "replace")
    except OSError:
        return ""
