"""``musc-edge verdict``: judge results anew without scoring, and show or export what they were judged."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .usage import UsageError
from .verdict_options import FLAGGED_EXIT, add_verdicts, failed, rule_of

if TYPE_CHECKING:
    from ..runtime.results.read_results import ScoredImage
    from ..runtime.results.rejudge import Rejudged, Request

_SHOWN = 10


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser(
        "verdict",
        help="judge results anew, without scoring",
        description="Judge results of musc-edge infer by another rule or by a person's marks. Verdicts and "
        "regions change, all at once; scores and maps stay. Without a rule, marks or --clear the verdicts "
        "that are there are shown.",
    )
    add = parser.add_argument
    add("results", metavar="OUT", type=Path, help="a folder that musc-edge infer wrote")
    group = add_verdicts(parser)
    add = group.add_argument
    add("--marks", type=Path, metavar="FILE",
        help="what a person said, from the report (JSON) or as a table with the columns image, mark (good or "
        "bad), remark; goes before the rule, replaces earlier marks, and stays until --clear")  # fmt: skip
    add("--threshold-of-marks", action="store_true",
        help="take the limits that the person chose in the report for the rule")  # fmt: skip
    add("--coco", type=Path, metavar="FILE", help="also write the regions as COCO annotations")
    add("--label-studio", type=Path, metavar="FILE",
        help="also write tasks with the regions as predictions, for Label Studio")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the files of --coco and --label-studio")
    add("--clear", action="store_true", help="take verdicts, marks and regions away")
    cli.add_common(parser, 6, 7, FLAGGED_EXIT)
    parser.set_defaults(run=_verdict)


def _verdict(args: argparse.Namespace) -> int:
    from ..runtime.results.annotations import require_free
    from ..runtime.results.rejudge import judged_results, rejudge
    from ..runtime.results.write import LOT
    from ..runtime.store.kept_folder import remove_finished

    if not args.results.is_dir():
        raise UsageError(f"{args.results} is no folder: give results of musc-edge infer.")
    request = _request(args)
    changes = request != type(request)()
    cli.clean_up_on_sigterm()
    exports = [path for path in (args.coco, args.label_studio) if path is not None]
    for path in exports:
        require_free(path, args.overwrite)
    if changes:
        remove_finished(args.results.resolve() / LOT)  # which knows these results by how they are now
    judged = (rejudge if changes else judged_results)(args.results, request)
    _export(args, judged)
    cli.show(verdict_json(judged, args.results) if args.json else verdict_text(judged, args.results))
    return FLAGGED_EXIT if failed([each.judgement for each in judged], args.fail_on) else 0


def _export(args: argparse.Namespace, judged: list[Rejudged]) -> None:
    from ..runtime.results.annotations import coco, label_studio, write_annotations

    for path, make in ((args.coco, coco), (args.label_studio, label_studio)):
        if path is not None:
            write_annotations(path, make(judged))


def _request(args: argparse.Namespace) -> Request:
    """Make the request that the options stand for; UsageError if they contradict each other."""
    from ..runtime.results.rejudge import Request
    from ..runtime.verdict.marks import read_marks
    from ..runtime.verdict.rules import Threshold

    rule = rule_of(args)
    if args.clear and (rule or args.marks or args.min_region or args.fail_on):
        raise UsageError(
            "--clear takes verdicts away: give no rule, marks, --min-region or --fail-on with it."
        )
    if args.marks and not args.marks.exists():
        raise UsageError(f"{args.marks} does not exist: give a file of marks.")
    marks = read_marks(args.marks) if args.marks else None
    if args.threshold_of_marks:
        if rule or marks is None or marks.threshold is None or marks.judged_by is None:
            raise UsageError(
                "--threshold-of-marks takes --marks with a file that has a threshold, and no rule."
            )
        rule = Threshold(marks.threshold, marks.review_from, marks.judged_by)
    return Request(rule, marks, args.min_region, args.clear)


def verdict_text(judged: list[Rejudged], out: Path) -> str:
    """Format as text: of each lot the flagged images, worst first, and what the verdicts mean."""
    from ..runtime.results.text import printable, ranking
    from ..runtime.results.verdict_text import verdict_lines

    lines = []
    for each in judged:
        lines += ["", f"{printable(str(each.lot.folder))}: {len(each.lot.images)} images"]
        if each.judgement is None:
            lines.append("no verdicts: give a rule, such as --verdict auto or --threshold")
            continue
        rows = _worst_first(each)
        flagged = [pair for pair in rows if pair[1] in ("reject", "review")]
        shown = [(image.name, image.score, image.raw_score) for image, _ in flagged[:_SHOWN]]
        lines += ranking(shown, [word for _, word in flagged[:_SHOWN]], each.lot.judge_by) if flagged else []
        lines += [f"     ... and {len(flagged) - _SHOWN} more"] if len(flagged) > _SHOWN else []
        lines += ["", *verdict_lines(each.judgement)]
        lines += [f"warning: {text}" for text in warnings(each)]
    return "\n".join([*lines, "", f"scores         {out / 'scores.csv'}"])


def _worst_first(each: Rejudged) -> list[tuple[ScoredImage, str]]:
    """Return the images of a lot that was judged with their verdicts, the worst verdict and score first."""
    words, by = ["reject", "review", "not flagged", ""], each.lot.judge_by
    verdicts = each.judgement.verdicts if each.judgement else ()
    pairs = zip(each.lot.images, verdicts, strict=bool(verdicts))
    return sorted(pairs, key=lambda pair: (words.index(pair[1]), -pair[0].judged(by)))


def warnings(each: Rejudged) -> list[str]:
    """Say what is not there."""
    if each.unlocated:
        return [
            f"no regions of {len(each.unlocated)} flagged images, such as {each.unlocated[0]}: these results "
            f"do not have the images' sizes, and the files are not in {each.lot.lot}"
        ]
    return []


def verdict_json(judged: list[Rejudged], out: Path) -> str:
    """Format as JSON: of each lot its ``verdicts`` as in lot.json, and its images, worst first."""
    parts = [
        {
            "folder": str(each.lot.folder),
            "verdicts": each.judgement.facts() if each.judgement else None,
            "images": [
                {"image": image.name, "verdict": word, "raw_score": image.raw_score, "score": image.score}
                for image, word in _worst_first(each)
            ],
            "regions": sum(len(regions) for _, regions in each.regions),
            "warnings": warnings(each),
        }
        for each in judged
    ]
    return json.dumps({"out": str(out), "lots": parts}, indent=2)
