"""Score a folder of images and write the results: ``python score_folder.py LOT_DIR BUNDLE OUT``."""

from __future__ import annotations

import sys

from musc_edge import MuscEdgeError, Resources, ScoreSettings, open_bundle, score_lot


def main(lot: str, bundle: str, out: str) -> None:
    """Score ``lot`` with ``bundle`` in at most 2 GB, print the worst images and write the folder ``out``."""
    result = score_lot(
        lot,
        open_bundle(bundle),
        ScoreSettings(neighbors=(1, 2, 3)),  # the paper's, as are all defaults
        Resources(memory_budget=2_000_000_000),
    )
    print(result)
    result.save(out, overwrite=True, overlays=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MuscEdgeError as error:  # says what was given, what was expected and what to do
        sys.exit(str(error))
