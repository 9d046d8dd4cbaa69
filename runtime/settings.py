"""What a user may choose: the method's parameters, and what a run may use of the machine.

Each default stands here once.  Nothing heavy is imported, so that a command line can show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import LotError
from .parallel import cores

AUTO = "auto"
"""The best that works here: of backends and of scorers."""


@dataclass(frozen=True)
class ScoreSettings:
    """The method's parameters, those of the paper by default.

    Attributes
    ----------
    degrees : odd sides r of the aggregation neighborhoods (LNAMD).
    interval : (lo, hi), the part of the sorted distances that is averaged (MSM).
    neighbors : window sizes k of RsCIN, the image itself counted.
    group_size : number of other images that score an image; None for all of them, as in the paper.

    Raises
    ------
    LotError
        If a window size is below 1; what no lot can be scored with otherwise is refused by the method.
    """

    degrees: tuple[int, ...] = (1, 3, 5)
    interval: tuple[float, float] = (0.0, 0.3)
    neighbors: tuple[int, ...] = (1, 2, 3)
    group_size: int | None = None

    def __post_init__(self) -> None:
        if min(self.neighbors, default=0) < 1:
            raise LotError(f"neighbors {self.neighbors}: expected window sizes of 1 or more, such as 1,2,3.")


PAPER = ScoreSettings()


@dataclass(frozen=True)
class Resources:
    """What runs the work, and what it may use.  Scores do not depend on memory or batch size.

    Attributes
    ----------
    batch : images in one run of the ViT.
    threads : threads that decode and compare images, and that the ViT uses; None for all cores.
    backend : what runs the ViT: "tensorrt", "cuda" or "cpu", or "auto" for the first that works here.
    scorer : "cuda", "numba" or "numpy", or "auto" for the first that works here.
    memory_budget : bytes for the whole process; None for what it holds already and half of what is free.
    device_memory : bytes that the scorer may use of a GPU; None for what is free.
    scratch : folder for what does not fit into the budget; None for the system's temporary folder.

    Raises
    ------
    LotError
        If ``batch`` or ``threads`` is below 1.
    """

    batch: int = 8
    threads: int | None = None
    backend: str = AUTO
    scorer: str = AUTO
    memory_budget: int | None = None
    device_memory: int | None = None
    scratch: Path | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise LotError(f"batch {self.batch} and threads {self.threads}: expected 1 or more.")

    @property
    def workers(self) -> int:
        """The number of threads: what was asked for, or one for each core."""
        return self.threads or cores()


ANYTHING = Resources()
"""The best that is here, and all of it."""
