"""The errors that a user can meet, one class per place to look, each with the command's exit code.

A message says what was received, what was expected, and the next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from .._signing_keys import NoCryptographyError, SignatureError
from ..kernels.errors import KernelError


class MuscEdgeError(Exception):
    """Base of every error this package raises on purpose; ``exit_code`` is the command line's for it."""

    exit_code: ClassVar[int] = 1


class BundleError(MuscEdgeError):
    """A bundle, the graph it is made from or an engine of it is missing, damaged or not what was expected."""

    exit_code = 4


class ReferenceFolderError(MuscEdgeError):
    """A reference is missing, damaged, or was made with another bundle."""

    exit_code = 4


class ReceiverError(MuscEdgeError):
    """The address of a receiver of results, or what it is to be trusted or persuaded by, cannot be used."""

    exit_code = 2


class DeviceError(MuscEdgeError):
    """A device or a backend cannot do what was asked of it."""

    exit_code = 5


class LotError(MuscEdgeError):
    """The images, or the settings for them, cannot be scored as a lot."""

    exit_code = 6


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be scored.

    ``status`` is unreadable, too_large or unsupported, or too_few or failed for all of a group's images.
    """

    name: str
    status: str
    reason: str


class TooFewImagesError(LotError):
    """Fewer images can be read than the method needs; ``skipped`` are those that cannot."""

    def __init__(self, message: str, skipped: Sequence[SkippedImage] = ()) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)


class OutputError(MuscEdgeError):
    """The results cannot be written where they were asked for."""

    exit_code = 7


class ParityError(MuscEdgeError):
    """An exported model's numbers differ from those of its source by more than the tolerance."""

    exit_code = 8


@contextmanager
def signature_errors() -> Iterator[None]:
    """Within the block a SignatureError becomes a BundleError, or a DeviceError if a library is missing."""
    try:
        yield
    except NoCryptographyError as error:
        raise DeviceError(str(error)) from error
    except SignatureError as error:
        raise BundleError(str(error)) from error


@contextmanager
def device_errors() -> Iterator[None]:
    """Within the block, or the function it decorates, a KernelError becomes a DeviceError."""
    try:
        yield
    except KernelError as error:
        raise DeviceError(str(error)) from error
