"""Check parts against a reference of an accepted lot: ``check_parts.py LOT_DIR BUNDLE REF IMAGE...``."""

from __future__ import annotations

import sys

from musc_edge import Checker, MuscEdgeError, ReferenceOptions, make_reference, open_bundle


def main(lot: str, bundle: str, out: str, *images: str) -> None:
    """Keep 13 images of ``lot`` in the folder ``out``, and check ``images`` at a false-alarm rate of 5 %."""
    opened = open_bundle(bundle)
    options = ReferenceOptions(images=13, suspects=0.1)
    reference = make_reference(lot, opened, out, options=options, overwrite=True)
    with Checker(reference, opened, alpha=0.05) as checker:  # opened once, called for every part
        print(checker.calibration.promise())
        for image in images:
            check = checker.check(image)
            if check.status != "ok":  # a damaged file is a result, not an error
                print(f"{image}: {check.status}, {check.error}")
                continue
            print(f"{image}: {check.verdict}, raw score {check.raw_score:.3f}, p {check.p:.3f}")
            for warning in check.warnings:
                print(f"  {warning}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MuscEdgeError as error:  # says what was given, what was expected and what to do
        sys.exit(str(error))
