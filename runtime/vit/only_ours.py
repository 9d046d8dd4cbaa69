"""Let nobody change a signed bundle after the check: hashes are checked, then libraries open the files."""

from __future__ import annotations

from pathlib import Path

from ..._files import first_way_in, way_to
from ..errors import BundleError


def only_ours(folder: Path) -> Path:
    """Return where a bundle's folder lies, links followed.

    Raises
    ------
    BundleError
        If there is none, or others than this user and root could put another in its place.
    """
    try:
        reason = way_to(folder)
        end = folder.resolve(strict=True)
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: there is no such folder.") from error
    if reason:
        raise _refused(folder, reason)
    return end


def require_only_ours(folder: Path, path: Path) -> None:
    """Raise BundleError if others could change ``path``, a file of a bundle whose ``folder`` is only ours."""
    between = [each for each in path.parents if each != folder and each.is_relative_to(folder)]
    if reason := first_way_in(*between, path):
        raise _refused(folder, reason)


def _refused(folder: Path, reason: str) -> BundleError:
    return BundleError(
        f"the bundle {folder} is not used: a signature is required, and {reason}, so that what is in it "
        "could be changed behind the check. Let nobody but this user and root write it (chmod -R go-w, "
        "chown -R), or copy it to where that is so."
    )
