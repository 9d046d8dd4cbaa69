"""What a user may choose: the method's parameters, and what a run may use of the machine.

Each default stands here once.  Nothing heavy is imported, so that a command line can show them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..kernels.precisions import PRECISIONS
from .errors import LotError
from .memory import default_budget
from .parallel import cores
from .tiling import Tiles

AUTO = "auto"
"""The best that works here: of backends and of scorers."""

DEFAULT = "default"
METHODS = {
    "paper": "the authors' choices",
    DEFAULT: "what measurements speak for: for ViTs of CLIP and fine grids the paper's",
    "fast": "no images are compared, for large lots",
}
"""The presets of the method by name, with what each is in a few words (scoring/presets.py)."""
PAIRS, RESIDUAL = "pairs", "residual"
"""What a patch is scored by: pairs of images (paper), or what lies outside of what is common in the lot."""

SCORE, RAW_SCORE = "score", "raw_score"
JUDGED = (SCORE, RAW_SCORE)
"""The columns of scores.csv that a lot may be judged by."""

RESCORE = ("cls", "salient", "none")
"""What makes images alike for the rescoring: their CLS embeddings, their salient patches, or nothing."""

GIVEN = "as given"
"""Why a setting is not as the preset has it."""

MAX_DEGREE = 999
"""Largest side of a neighborhood: far beyond any grid of patches."""


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen for a user, or given (``GIVEN``) otherwise than the preset has it.

    ``option`` is the field, ``value`` its value, ``why`` the reason.
    """

    option: str
    value: Any
    why: str


def meaningless(given: str) -> str:
    """Say that something given has no meaning by residual, and what to do."""
    return (
        f"{given} has no meaning by {RESIDUAL}, where no images are compared: leave it out, or score by "
        f"{PAIRS}."
    )


def not_of_cuda(precision: str, scorer: str) -> str:
    """Say that a precision has no meaning for a scorer, and what to do."""
    return (
        f"--precision {precision} is for --scorer cuda, which compares on a GPU, and the scorer is {scorer}: "
        "give both, or leave it out."
    )


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
    tiles : Tiles, optional
        How images are cut; by default each is scored whole, as in the paper.
    burn_out : bool, default False
        Begin a patch's interval behind the few images in which it finds its like, where all others lie apart
        from them: a defect that several images have does not look normal then (docs/copies.md).
    copies_judge : bool, default True
        Whether images that are copies of each other judge each other.  Without them a defect that is on all
        of them counts as rare as it is.
    rescore : {"cls", "salient", "none"}
        By what images are alike whose scores are evened out: their CLS embeddings (RsCIN, as in the paper),
        the tokens of their most suspicious patches (RsCon of MuSc-V2), or not at all.
    position_median : float or "auto", default 0
        Share of each position's median over the lot that is subtracted before an image's maximum is taken, 0
        to 1; "auto": half of it where the lot is aligned (``alignment``).
    judge_by : {"score", "raw_score"}
        The column that a lot is sorted and judged by: after rescoring, as in the paper, or before.
    window : int, optional
        A patch is compared only with patches of the other images that are at most so many rows and columns
        away from its own place; by default with all, as in the paper (docs/small-defects.md).
    chosen : tuple of Choice
        What a preset chose and why, for results to say; empty for settings that were written out.
    by : {"pairs", "residual"}
        What a patch is scored by: its distances to the other images (MSM), or the length of what lies outside
        of the principal components of all patches of the lot, for which no images are compared: fast.

    Raises
    ------
    LotError
        If a window size in ``neighbors`` is below 1, a share outside of 0 to 1, a word none of those above,
        or ``by`` does not go with the others.  ``score_lot`` checks the rest.
    """

    degrees: tuple[int, ...] = (1, 3, 5)
    interval: tuple[float, float] = (0.0, 0.3)
    neighbors: tuple[int, ...] = (1, 2, 3)
    group_size: int | None = None
    by: str = PAIRS
    tiles: Tiles | None = None
    burn_out: bool = False
    copies_judge: bool = True
    rescore: str = RESCORE[0]
    position_median: float | str = 0.0
    judge_by: str = SCORE
    window: int | None = None
    chosen: tuple[Choice, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.tiles and self.rescore == "salient":
            raise LotError("rescoring by salient patches is not made for tiles: use --rescore cls or none.")
        if min(self.neighbors, default=0) < 1:
            raise LotError(f"neighbors {self.neighbors}: expected window sizes of 1 or more, such as 1,2,3.")
        self._check_by()
        if self.judge_by not in JUDGED:
            raise LotError(f"judged by {self.judge_by!r}: expected {' or '.join(JUDGED)}.")
        if self.rescore not in RESCORE:
            raise LotError(f"rescore {self.rescore!r}: expected one of {', '.join(RESCORE)}.")
        share = self.position_median
        if share != AUTO and not (isinstance(share, float | int) and 0 <= share <= 1):
            raise LotError(f"position median {share!r}: expected a share from 0 to 1, or {AUTO!r}.")

    def _check_by(self) -> None:
        """Raise LotError if ``by`` is unknown, or settings have no meaning with it."""
        if self.by not in (PAIRS, RESIDUAL):
            raise LotError(f"by {self.by!r}: expected {PAIRS} or {RESIDUAL}.")
        fields = {"interval": "interval", "group size": "group_size", "window": "window"}
        fields |= {"burn-out": "burn_out", "keeping copies apart": "copies_judge"}
        for what, name in fields.items():
            value = getattr(self, name)
            if self.by == RESIDUAL and value != getattr(ScoreSettings, name):
                raise LotError(meaningless(what if isinstance(value, bool) else f"{what} {value}"))

    def with_choice(self, choice: Choice) -> ScoreSettings:
        """Return these settings with a field that was chosen now, and the choice among ``chosen``."""
        before = tuple(each for each in self.chosen if each.option != choice.option)
        return replace(self, **{choice.option: choice.value, "chosen": (*before, choice)})


PAPER = ScoreSettings()


def require_address(cluster: object) -> None:
    """Raise LotError unless ``cluster`` is "auto" or an address."""
    if cluster != AUTO and not (isinstance(cluster, str) and _ADDRESS.fullmatch(cluster)):
        raise LotError(
            f"cluster {cluster!r}: expected {AUTO}, or the address of one such as 10.0.0.1:6379, as ray "
            "start --head prints it."
        )


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}")


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
    cluster : str, optional
        The cluster of Ray that runs ViT and comparisons: "auto" for one on this machine, that ends with the
        work, or the address of one (docs/cluster.md); none by default.
    precision : {"half", "int8"}, optional
        In what the scorer "cuda" compares patches, "half" by default.  "int8" is twice as fast on the GPUs
        that it is for, and costs some digits (docs/gpu.md).
    device_memory : int, optional
        Bytes that the scorer may use of a GPU; by default nine tenths of what is free.
    scratch : path, optional
        Folder for what does not fit into the budget; by default the system's temporary folder.

    Raises
    ------
    LotError
        If ``batch`` or ``threads`` is below 1, ``cluster`` is no address, or a ``precision`` is unknown or
        given for another scorer.
    """

    batch: int = 8
    threads: int | None = None
    backend: str = AUTO
    scorer: str = AUTO
    memory_budget: int | None = None
    device_memory: int | None = None
    scratch: Path | None = None
    precision: str | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise LotError(f"batch {self.batch} and threads {self.threads}: expected 1 or more.")
        if self.cluster is not None:
            require_address(self.cluster)
        if self.precision not in (None, *PRECISIONS):
            raise LotError(f"precision {self.precision!r}: expected {' or '.join(PRECISIONS)}.")
        if self.precision is not None and self.scorer != "cuda":
            raise LotError(not_of_cuda(self.precision, self.scorer))

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
