"""The option by which ``musc-edge watch`` and ``musc-edge serve`` watch a line for drift."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.line.drift import DriftMonitor, Results
    from ..runtime.reference.files import ReferenceFolder


def add_drift(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--drift-rate", type=rate, metavar="R",
        help="tell when the process or the camera changed, with at most this many false alarms per image on "
        "average; 0 turns it off (default: 0.0001)")  # fmt: skip


def drift_witness(
    args: argparse.Namespace, reference: ReferenceFolder, log: Results
) -> tuple[DriftMonitor, ...]:
    """Return what watches a line for drift: one witness for its station, or none if it is turned off."""
    from ..runtime.line.drift import RATE, DriftMonitor

    wanted = RATE if args.drift_rate is None else args.drift_rate
    return (DriftMonitor(reference, wanted, log),) if wanted else ()


def rate(text: str) -> float:
    """Parse a rate, from 0 up to 0.1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value == 0 or 1e-12 <= value <= 0.1):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected false alarms per image, such as 0.0001; at most 0.1, or 0 for none"
        )
    return value
