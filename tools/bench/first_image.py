"""A process that brings one image to its tokens and prints when each step was done (CLOCK_MONOTONIC, s).

Steps: this file begins, imports are made, the bundle is open, the ViT is loaded, the first image is through.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Arguments: bundle folder, image file, threads."""
    marks = [time.monotonic()]
    from pathlib import Path

    import numpy as np

    from ...runtime.bundle import open_bundle
    from ...runtime.images import preprocess, read_image
    from ...runtime.onnx_backend import OnnxBackend, import_onnxruntime
    from ...runtime.types import Slot

    import_onnxruntime()
    marks.append(time.monotonic())
    bundle = open_bundle(Path(sys.argv[1]))
    marks.append(time.monotonic())
    m = bundle.manifest
    tokens = np.empty((len(m.layers), 1, m.patches, m.token_width), m.tokens[0].dtype)
    with OnnxBackend(bundle, int(sys.argv[3])) as backend:
        marks.append(time.monotonic())
        pixels = preprocess(read_image(Path(sys.argv[2])), m.preprocess)
        backend.extract_into(pixels[None], Slot(tokens, np.empty((1, m.cls_width), np.float32)))
        marks.append(time.monotonic())
    print(*marks)


if __name__ == "__main__":
    main()
