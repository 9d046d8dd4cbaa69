"""Which file system a folder is on, and whether the kernel is told there of what other machines write."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NAMES = """9p acfs afs beegfs ceph cifs coda davfs fhgfs gfs gfs2 glusterfs gpfs lustre ncp ncpfs nfs nfs4
ocfs2 orangefs prl_fs pvfs2 smb2 smb3 smbfs vboxsf virtiofs vmhgfs"""
_REMOTE = frozenset(_NAMES.split())
_LOCAL_FUSE = frozenset(("fuseblk", "fusectl", "fuse.lxcfs", "fuse.fuse-overlayfs", "fuse.overlayfs"))


def remote_kind(folder: Path) -> str:
    """Return the kind of a folder's file system, such as ``nfs4``, if others may write there unseen; or "".

    inotify hears what is done through this machine's kernel alone.  Of FUSE (sshfs, s3fs, rclone) it is
    taken for granted that others write there too.
    """
    kind = _kind(folder)
    fuse = kind.startswith("fuse") and kind not in _LOCAL_FUSE
    return kind if kind in _REMOTE or fuse else ""


def _kind(folder: Path) -> str:
    """The kind of the file system that a folder is on; empty if that cannot be told."""
    real = os.path.realpath(folder)
    found, longest = "", -1
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:  # a later mount on the same point hides the earlier one
        place, _, system = line.partition(" - ")
        fields, kind = place.split(), system.split()[:1]
        point = _plain(fields[4]) if len(fields) > 4 else ""
        inside = point and (real == point or real.startswith(point.rstrip("/") + "/"))
        if inside and kind and len(point) >= longest:
            found, longest = kind[0], len(point)
    return found


def _plain(point: str) -> str:
    """A mount point, in which blanks and the like are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
