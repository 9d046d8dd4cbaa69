"""Bring one image to its tokens in a new process, and print when each step was done (CLOCK_MONOTONIC, s).

Steps: this file begins, the bundle is open, the backend's libraries are imported, the ViT is loaded and its
weights are checked, the first image is done.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Run the steps; the arguments are bundle folder, image file, threads, backend."""
    marks = [time.monotonic()]
    from contextlib import ExitStack
    from pathlib import Path

    from ...runtime.images.reading import preprocess, read_image
    from ...runtime.vit.bundle import open_beside
    from ...runtime.vit.choose import enter_backend, import_libraries
    from ...runtime.vit.extract import empty_slot

    bundle = open_beside(Path(sys.argv[1]))
    marks.append(time.monotonic())
    import_libraries(sys.argv[4])
    marks.append(time.monotonic())
    slot = empty_slot(bundle, 1)
    with ExitStack() as stack:
        backend, _ = enter_backend(stack, sys.argv[4], bundle, int(sys.argv[3]), 1)
        bundle.require_checked()
        marks.append(time.monotonic())
        pixels = preprocess(read_image(Path(sys.argv[2])), bundle.manifest.preprocess)
        backend.extract_into(pixels[None], slot)
        marks.append(time.monotonic())
    print(*marks)


if __name__ == "__main__":
    main()
