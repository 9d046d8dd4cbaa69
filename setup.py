"""Build configuration that pyproject.toml cannot express: the checkout itself is the package.

Every top-level folder ``X`` is the subpackage ``musc_edge.X``.  Metadata and tool settings are in
pyproject.toml.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildPackageOnly(build_py):
    """Leave ``setup.py`` out of the wheel: it lies in the package's folder but is not a module of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return [m for m in modules if m[:2] != ("musc_edge", "setup")]


# Building leaves its traces in the one folder that git ignores, not in the package's own.
BUILD = Path(".work/build")
BUILD.mkdir(parents=True, exist_ok=True)
shutil.rmtree(BUILD / "lib", ignore_errors=True)  # a deleted module must not come back from an earlier build

# Each with its subfolders; a folder counts if it holds an __init__.py, which tests and docs do not.
PARTS = [pattern for name in ("export", "kernels", "runtime", "tools") for pattern in (name, f"{name}.*")]

setup(
    options={"build": {"build_base": str(BUILD)}, "egg_info": {"egg_base": str(BUILD)}},
    package_dir={"musc_edge": "."},
    packages=["musc_edge", *(f"musc_edge.{name}" for name in find_packages(include=PARTS))],
    cmdclass={"build_py": BuildPackageOnly},
)
