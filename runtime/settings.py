"""What a user may choose: the method's parameters, and what a run may use of the machine.

Each default stands here once.  Nothing heavy is imported, so that a command line can show them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import LotError
from .memory import default_budget
from .parallel import cores

AUTO = "auto"
"""The best that works here: of backends and of scorers."""

DEFAULT = "default"
METHODS = {"paper": "the authors' choices", DEFAULT: "the paper's, unless measurements speak for others"}
"""The presets of the method by name, with what each is in a few words (scoring/presets.py)."""
PAIRS, RESIDUAL = "pairs", "residual"
"""What a patch is scored by: pairs of images (paper), or what lies outside of what is common in the lot."""

MAX_DEGREE = 999
"""Largest side of a neighborhood: far beyond any grid of patches."""


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen for a user who did not give it: the field, its value, and why."""

    option: str
    value: Any
    why: str


@dataclass(frozen=True)
class ScoreSettings:
    """The method's parameters, those of the paper by default; ``settings_for`` makes them by a preset.

    Attributes
    ----------
    degrees : tuple of int, default (1, 3, 5)
        Odd sides r of the neighborhoods over which tokens are averaged (LNAMD; paper, section 3.2).
    interval : (lo, hi), default (0.0, 0.3)
        The part of the sorted distances that is averaged (MSM; paper, section 3.3).
    neighbors : tuple of int, default (1, 2, 3)
        Window sizes k of the rescoring, the image itself counted (RsCIN; paper, section 3.4).
    group_size : int, optional
        Number of other images that score an image; all of them by default, as in the paper.
    burn_out : bool, default False
        Begin a patch's interval behind the few images in which it finds its like, where all others lie apart
        from them: a defect that several images have does not look normal then (docs/copies.md).
    copies_judge : bool, default True
        Whether images that are copies of each other judge each other.  Without them a defect that is on all
        of them counts as rare as it is.
    chosen : tuple of Choice
        What a preset chose and why, for results to say; empty for settings that were written out.
    by : {"pairs", "residual"}
        What a patch is scored by: its distances to the other images (MSM), or the length of what lies outside
        of the principal components of all patches of the lot, for which no images are compared: fast.

    Raises
    ------
    LotError
        If a window size in ``neighbors`` is below 1, or ``by`` does not go with the others.  ``score_lot``
        checks the rest.
    """

    degrees: tuple[int, ...] = (1, 3, 5)
    interval: tuple[float, float] = (0.0, 0.3)
    neighbors: tuple[int, ...] = (1, 2, 3)
    group_size: int | None = None
    by: str = PAIRS
    burn_out: bool = False
    copies_judge: bool = True
    chosen: tuple[Choice, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if min(self.neighbors, default=0) < 1:
            raise LotError(f"neighbors {self.neighbors}: expected window sizes of 1 or more, such as 1,2,3.")
        self._check_by()

    def _check_by(self) -> None:
        """Raise LotError if ``by`` is unknown, or settings have no meaning with it."""
        if self.by not in (PAIRS, RESIDUAL):
            raise LotError(f"by {self.by!r}: expected {PAIRS} or {RESIDUAL}.")
        fields = {"interval": "interval", "group size": "group_size"}
        fields |= {"burn-out": "burn_out", "copies judge": "copies_judge"}
        for what, name in fields.items():
            value = getattr(self, name)
            if self.by == RESIDUAL and value != getattr(ScoreSettings, name):
                raise LotError(
                    f"{what} {value} has no meaning by {RESIDUAL}, where no images are compared: leave it "
                    f"out, or score by {PAIRS}."
                )


PAPER = ScoreSettings()


@dataclass(frozen=True)
class Resources:
    """What runs the work, and what it may use.  Scores do not depend on memory.

    Attributes
    ----------
    batch : int, default 8
        Images in one run of the ViT.
    threads : int, optional
        Threads that decode and compare images, and that the ViT uses; all cores by default.
    backend : {"auto", "tensorrt", "cuda", "cpu"}
        What runs the ViT; "auto" takes the first of the others that works here.
    scorer : {"auto", "cuda", "numba", "numpy"}
        What compares the images; "auto" takes the first of the others that works here.
    memory_budget : int, optional
        Bytes for the whole process, by default what it holds already and half of what
        is free.
    device_memory : int, optional
        Bytes that the scorer may use of a GPU; by default nine tenths of what is free.
    scratch : path, optional
        Folder for what does not fit into the budget; by default the system's temporary folder.

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

    @property
    def budget(self) -> int:
        """Bytes for the whole process: what was asked for, or what the machine can give now."""
        return default_budget() if self.memory_budget is None else self.memory_budget


ANYTHING = Resources()
"""The best that is here, and all of it."""
