"""Make docs/image-formats.md and docs/image-formats.json: what every container of one picture gives.

    python tests/measure/image_formats.py

Reads all cases of ``tests/support/image_matrix.py``.  The exit code is 1 if one gives neither its picture nor
its reason.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import PIL
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.image_matrix import Case, Outcome, groups, outcome
from support.places import ROOT

HEAD = """# Which image files are scored

One picture of 24 x 17 pixels in {total} containers, each written by tifffile, imagecodecs, Pillow or byte
by byte, and read as `musc-edge infer` reads it: **{scored} are scored, each with the colours that were
written; {refused} are refused with the reason; {wrong} are wrong.** Made by `python
tests/measure/image_formats.py` with Pillow {pillow}, OpenCV {opencv}, tifffile {tifffile}, imagecodecs
{imagecodecs}. Every container is in [image-formats.json](image-formats.json), with the largest difference
of a colour, of 255, or the reason, and is a test.

The table of what is accepted is in `runtime/images/image_header.py`, for TIFF in
`runtime/images/tiff_kinds.py`.

## Rules

- **A sample's scale.** 16 bits may hold less: they have one depth for the whole lot (`--bit-depth`). What
  says itself which value is white has that scale, whatever the depth of the lot: TIFF of 9 to 15 bits,
  Netpbm's largest value, CMYK, JPEG 2000 and JPEG XL of 9 to 15 bits. Floating-point, 32-bit and signed
  samples say nothing of black and white and are refused; so are int16 files without negative values, since
  nobody can say whether their white is 32767.
- **Alpha** is laid over white, multiplied into the colour (TIFF's ExtraSamples 1) or not (2). Alpha that is
  0 everywhere is no alpha: programs leave it so, and a picture that shows nothing is none. Samples of which
  the file does not say that they are alpha (infrared) are ignored beside RGB, CMYK and one gray; a gray and
  two or more unknown samples are refused.
- **Orientation** of EXIF, TIFF, or else XMP is applied, wherever in the file it stands; HEIC and JPEG XL
  turn themselves.
- **Colour profiles** are not applied, as the authors do not apply them; a lot that mixes them has a note.
- **Several pages**: the first is scored, with a note; a TIFF whose first page is a preview is refused.

## Scored

| container | cases |
|---|---|
"""

REFUSED = """
## Refused

| container | given | reason |
|---|---|---|
"""

INSTALL = """
JPEG XL, HEIC, and TIFF compressed by JPEG XL, JPEG 2000 or LERC, or by JPEG with planes apart or four
samples, need `pip install 'musc-edge[formats]'` (imagecodecs, pillow-heif); without it they are
`unsupported`, with this hint.
"""


def main() -> int:
    """Read all cases and write both files."""
    rows: list[tuple[Case, Outcome]] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in groups().values():
            rows += [(case, outcome(case, Path(folder))) for case in group]
    wrong = [(case, found) for case, found in rows if not found.right]
    (ROOT / "docs" / "image-formats.md").write_text(_page(rows, len(wrong)), encoding="utf-8")
    found_of = {
        group: {case.name: outcome_in_short(found) for case, found in rows if case.group == group}
        for group in groups()
    }
    lines = ",\n".join(f"{json.dumps(group)}: {json.dumps(found)}" for group, found in found_of.items())
    (ROOT / "docs" / "image-formats.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    for case, found in wrong:
        print(f"{case.group}, {case.name}: {found.said}")
    print(f"{len(rows)} containers, {len(wrong)} wrong")
    return int(bool(wrong))


def outcome_in_short(found: Outcome) -> float | str:
    """Return the largest difference from the picture, of 255, or the reason of a refusal."""
    return round(found.most, 2) if found.scored and found.right else found.said


def _page(rows: list[tuple[Case, Outcome]], wrong: int) -> str:
    import imagecodecs

    scored = [case for case, found in rows if found.right and found.scored]
    refused = [(case, found) for case, found in rows if found.right and not found.scored]
    page = HEAD.format(
        total=len(rows),
        scored=len(scored),
        refused=len(refused),
        wrong=wrong,
        pillow=PIL.__version__,
        opencv=cv2.__version__,
        tifffile=tifffile.__version__,
        imagecodecs=imagecodecs.__version__,
    )
    counts = {
        group: sum(case.group == group for case in scored) for group in dict.fromkeys(c.group for c in scored)
    }
    page += "".join(f"| {group} | {count} |\n" for group, count in counts.items()) + INSTALL + REFUSED
    seen = set()
    for case, found in refused:
        if (case.group, found.said) not in seen:
            seen.add((case.group, found.said))
            page += f"| {case.group} | {case.name} | `{found.said}` |\n"
    return page


if __name__ == "__main__":
    np.seterr(all="raise")
    sys.exit(main())
