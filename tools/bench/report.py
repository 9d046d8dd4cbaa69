"""A benchmark's report as JSON: the measurements and the machine (schema.json)."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..._json import read_json, shortly
from ...runtime.parallel import cores
from ..usage import UsageError

SCHEMA = 1
REPORT, SAMPLES, PICTURE, TABLE = "report.json", "samples.csv", "report.png", "report.txt"
_MOST = 2000
"""Limit of names, and of the rounds of a name, in a report that is compared."""
_PARTS: dict[str, type] = {"case": str, "settings": dict, "samples": dict, "machine": dict, "versions": dict}
_VERSIONS = ("musc-edge", "numpy", "onnxruntime", "numba", "torch", "opencv-python-headless", "pillow")


@dataclass
class Report:
    """The measurements of one command.

    ``samples`` holds the seconds of every round by name, ``calls`` those of single calls within the rounds,
    ``yardstick`` those of a fixed matrix product after each round (peak.py), ``facts`` what follows from
    them.  ``partial`` is True if the run was cut short.
    """

    case: str
    settings: dict[str, Any]
    samples: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, list[float]] = field(default_factory=dict)
    yardstick: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    partial: bool = False

    def content(self) -> dict[str, Any]:
        """Return the report's JSON, in the form that schema.json describes."""
        return {
            "schema": SCHEMA,
            "case": self.case,
            "partial": self.partial,
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
            "samples": self.samples,
            "calls": self.calls,
            "yardstick": self.yardstick,
            "facts": self.facts,
            "resources": self.resources,
        }


def read_report(path: Path) -> dict[str, Any]:
    """Read a report of ``musc-bench``, or that in a folder; UsageError if it is none that this one reads."""
    if path.is_dir():
        path /= REPORT
    make_one = "Make one with: musc-bench CASE --out FOLDER, which writes report.json."
    try:
        report = read_json(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. {make_one}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); expected a report. {make_one}") from error
    if not isinstance(report, dict) or "schema" not in report:
        raise UsageError(f"{path} is not a report of musc-bench: it names no schema. {make_one}")
    if report["schema"] != SCHEMA:
        raise UsageError(
            f"{path} has schema {shortly(report['schema'])}; this musc-bench reads {SCHEMA}. "
            "Measure both again with one version."
        )
    for part, kind in _PARTS.items():
        if not isinstance(report.get(part), kind):
            raise UsageError(
                f"{path} is not a report of musc-bench: {part} is {shortly(report.get(part))}, expected "
                f"{'a text' if kind is str else 'an object'}. {make_one}"
            )
    yardstick = {"yardstick": report.get("yardstick", [])}
    if len(report["samples"]) > _MOST:
        raise UsageError(f"{path} has samples of {len(report['samples'])} names, expected at most {_MOST}.")
    for name, seconds in (*report["samples"].items(), *yardstick.items()):
        if not isinstance(seconds, list) or len(seconds) > _MOST or not all(map(_is_seconds, seconds)):
            raise UsageError(
                f"{path}: the samples of {shortly(name)} are {shortly(seconds)}, expected a list of seconds, "
                f"at most {_MOST}. {make_one}"
            )
    return report


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that compute something."""
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
