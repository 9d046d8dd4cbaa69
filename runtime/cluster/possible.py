"""What a cluster cannot do, said before any work."""

from __future__ import annotations

from ..errors import DeviceError
from ..settings import Resources

_ONE = "Leave it out, or leave --cluster out and use one machine."


def require_possible(resources: Resources) -> None:
    """Raise DeviceError if a cluster is asked for, and the scorer "cuda", or its memory."""
    if resources.cluster is None:
        return
    if resources.scorer == "cuda" or resources.device_memory is not None:
        given = "the scorer cuda (--scorer)" if resources.scorer == "cuda" else "--device-memory"
        raise DeviceError(
            f"{given} has no meaning on a cluster, whose workers compare images on their processors. {_ONE}"
        )


def require_one_machine(resources: Resources, what: str) -> None:
    """Raise DeviceError if a cluster is asked for, and ``what`` is done on one machine."""
    if resources.cluster is not None:
        raise DeviceError(f"{what} on one machine, without a cluster: leave it out.")
