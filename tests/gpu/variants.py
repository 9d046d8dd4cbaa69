"""Other kernels beside those of the checkout, to be compared with them in one run.

A variant is a folder with files that take the place of those of the same names in ``kernels/``, such as a
changed ``gram.cuh``, and ``launches.py`` if its geometry changes.  It is checked and timed as the checkout's
kernels are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gpu.checkout import ROOT

_LEFT_OUT = {".git", ".work", "tests", "kernels", "__pycache__"}


def variants_in(folder: Path) -> dict[str, Path]:
    """The variants in a folder, by the names of its subfolders.

    Raises
    ------
    ValueError
        If there is none, or one has nothing, or a file that ``kernels/`` does not have.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    if not found:
        raise ValueError(f"{folder} has no subfolders: expected one for each variant of the kernels")
    for name, variant in found.items():
        files = {path.name for path in variant.iterdir()}
        unknown = sorted(name for name in files if not (ROOT / "kernels" / name).is_file())
        if unknown or not files:
            what = ", ".join(unknown) or "nothing"
            raise ValueError(f"variant {name} has {what}: expected files that are in kernels/")
    return found


def package_of(variant: Path, folder: Path) -> Path:
    """The folder, made anew, from which ``musc_edge`` is imported with the variant's kernels."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "musc_edge"
    package.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name not in _LEFT_OUT:
            (package / path.name).symlink_to(path, target_is_directory=path.is_dir())
    # Copies, not links: the source is found beside the module that reads it.
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for path in variant.iterdir():
        shutil.copy(path, package / "kernels" / path.name)
    return folder
