"""What a cluster cannot do, said before any work."""

from __future__ import annotations

from ..errors import DeviceError, LotError
from ..settings import RESIDUAL, Resources, ScoreSettings

_ONE = "Leave it out, or leave --cluster out and use one machine."


def require_possible(settings: ScoreSettings, resources: Resources) -> None:
    """Raise if a cluster is asked for, with settings or resources that are for one machine alone.

    Raises
    ------
    LotError
        By residual.
    DeviceError
        For the scorer "cuda" and its memory.
    """
    if resources.cluster is None:
        return
    if settings.by == RESIDUAL:
        raise LotError(
            f"by {RESIDUAL} no images are compared, and a cluster has nothing to share out: leave --cluster "
            "out, or score by pairs."
        )
    if resources.scorer == "cuda" or resources.device_memory is not None:
        given = "the scorer cuda (--scorer)" if resources.scorer == "cuda" else "--device-memory"
        raise DeviceError(
            f"{given} has no meaning on a cluster, whose workers compare images on their processors. {_ONE}"
        )


def require_one_machine(resources: Resources, what: str) -> None:
    """Raise DeviceError if a cluster is asked for, and ``what`` is done on one machine."""
    if resources.cluster is not None:
        raise DeviceError(f"{what} on one machine, without a cluster: leave it out.")
