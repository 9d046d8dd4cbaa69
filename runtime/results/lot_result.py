"""What ``score_lot`` returns: the scores of a lot, which can be printed and saved."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..._numbers import counted
from ..errors import LotError
from ..parallel import cores
from ..remote import RemoteFile
from ..types import LotRoot
from ..verdict.rules import Rule
from .image_files import TOP, OutputOptions
from .lot_scores import LotScores
from .output import new_folder, require_apart
from .report.write import add_report_of
from .text import printable, ranking
from .verdict_text import verdict_lines
from .write import LOT, NAMES, write_results

_WORST, _SKIPPED = 5, 3  # images that are printed
_INSTEAD = "Choose another folder."


@dataclass(frozen=True, repr=False, eq=False)
class LotResult(LotScores):
    """The scores of a lot, and how they came about.  ``print(result)`` shows the worst images.

    Row i of every array belongs to ``images[i]``: N images, a grid of Gh x Gw patches, CLS embeddings of
    width D.  Scores and maps are distances between unit vectors, from 0 to 2; the higher, the more unlike
    the rest of the lot.  ``order()`` gives the rows from the most to the least suspicious image, by the
    values ``judged`` (N,) of the column ``judge_by``: ``score``, or ``raw_score`` if the settings say so.

    Attributes
    ----------
    images : tuple of LotImage, N of them
        The images that were scored, in natural order (2.png before 10.png).
    skipped : tuple of SkippedImage
        Those that could not be scored, each with ``name``, ``status`` (unreadable, too_large or unsupported)
        and ``reason``.
    maps : ndarray of shape (N, Gh, Gw), float32
        Anomaly maps on the patch grid: mutual scores (paper, section 3.3).
    raw_scores : ndarray of shape (N,), float64
        Maximum of each map in pixels, less ``level``.
    scores : ndarray of shape (N,), float64
        Raw scores after RsCIN (paper, section 3.4), in the same distance units.
    lot_scores : ndarray of shape (N,), float64
        The same from 0 to 1 within the lot, as in the paper.
    cls : ndarray of shape (N, D), float32
        CLS embeddings, L2-normalised.
    warnings : tuple of str
        What to know before trusting the scores.
    survey : Survey
        What the files are; ``survey.read(image)`` gives an image as it was scored, in RGB.
    run : RunFacts
        Bundle, settings, backend, scorer, memory plan, seconds of each stage, and notes.
    copies : tuple of Copies
        Images that show the same shot; ``images`` and ``same_bytes`` hold names, ``apart`` is whether they do
        not judge each other.
    level : ndarray of shape (Gh, Gw), float32, optional
        What was subtracted from every map before its maximum was taken; None: nothing.
    judgement : Judgement, optional
        Verdicts, after ``judge``: ``judgement.verdicts[i]`` is reject, review or not flagged.
    later : ndarray of shape (N, Gh, Gw), float32, optional
        With burn-out, the share of layers and degrees in which the interval of a patch began behind images
        that show the same as it.
    """

    def judge(self, rule: Rule, *, min_region: int = 1) -> LotResult:
        """Return the result with verdicts by a rule, which ``save`` writes, with the flagged images' regions.

        Parameters
        ----------
        rule : Threshold, RejectRate, RejectCount, ThresholdFrom or Auto
            Its docstring says what it does, ``judgement.limits.promise`` what it promises.
        min_region : int, default 1
            Pixels of an image below which a region is left out.

        Raises
        ------
        LotError
            If nothing can be said of the lot: it is too small for the rule, or cannot be compared with the
            lot that the limit is from.
        """
        found = self.judgement_by(rule, min_region)
        if found.limits.refused:
            raise LotError(f"{found.limits.refused}.")
        return dataclasses.replace(self, judgement=found)

    @property
    def root(self) -> LotRoot:
        """The folder, or URL, that the images' names are relative to."""
        image = self.images[0]
        if isinstance(image.path, RemoteFile):
            return image.path.folder
        parents = image.path.parents
        return parents[min(len(PurePosixPath(image.name).parts), len(parents)) - 1]

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        maps: str = "grid",
        map_format: str = "npy",
        overlays: bool = False,
        csv: str = "plain",
        top: int = TOP,
        report: bool = False,
    ) -> None:
        """Write the folder of results that ``musc-edge infer`` writes, all at once or not at all.

        It holds scores.csv, lot.json, contact_sheet.png, and a map and an overlay for each image if asked
        for.  Overlays and the contact sheet read the images again; what cannot be drawn any more is left out,
        and lot.json says so.

        Parameters
        ----------
        folder : str or path
            Where to write; missing parents are made.
        overwrite : bool, default False
            Replace results that are there already.  Anything else that is there is never replaced.
        maps : {"grid", "pixel", "original", "none"}
            Maps of shape (Gh, Gw), at the model's size (H, W), at the image's own size, or no maps.
        map_format : {"npy", "tiff", "png8", "png16"}
            Distances in float32 (npy, tiff), or one scale for the whole lot (png8, png16).
        overlays : bool, default False
            Also write each image with its heatmap over it, as JPEG.
        csv : {"plain", "excel"}
            scores.csv in UTF-8, or as spreadsheets open it well: with a byte order mark, and an apostrophe
            before cells that would be run as a formula.
        top : int, default 8
            The most suspicious images on the contact sheet, at most 400.
        report : bool, default False
            Also write report.html, a page with all images, to look at and to try limits, without network.

        Raises
        ------
        OutputError
            If ``folder`` exists, holds something else or the lot itself, or cannot be written, the disk is
            full, or ``maps``, ``map_format``, ``csv`` or ``top`` is none of the above.
        """
        options, out = OutputOptions(maps, map_format, overlays, cores(), csv, top), Path(folder)
        if isinstance(self.root, Path):
            require_apart(out, self.root, _INSTEAD)
        with new_folder(out, overwrite, LOT, NAMES, _INSTEAD, replace="overwrite=True") as target:
            write_results(self, target, self.root, options)
            if report:
                add_report_of([self], target, self.root)

    def __repr__(self) -> str:
        return (
            f"<LotResult: {counted(len(self.images), 'image')}, scores {self.judged.min():.4f} to "
            f"{self.judged.max():.4f}, skipped {len(self.skipped)}, warnings {len(self.warnings)}>"
        )

    def __str__(self) -> str:
        worst = [
            (self.images[i].name, float(self.scores[i]), float(self.raw_scores[i]))
            for i in self.order()[:_WORST]
        ]
        return "\n".join(
            [
                f"{counted(len(self.images), 'image')} scored, {len(self.skipped)} skipped; most suspicious:",
                *ranking(worst, self.verdicts_of(self.order()[:_WORST]), self.judge_by),
                *(verdict_lines(self.judgement) if self.judgement else ()),
                *(f"skipped: {printable(each.name)} ({each.status})" for each in self.skipped[:_SKIPPED]),
                *(f"warning: {text}" for text in self.warnings),
            ]
        )
