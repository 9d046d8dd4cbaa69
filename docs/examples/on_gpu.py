"""Score a lot on an NVIDIA GPU: ``python on_gpu.py LOT_DIR BUNDLE``.

What is asked for by name has no substitute: where there is no GPU, or a library is missing, DeviceError says
so.
"""

from __future__ import annotations

import sys

from musc_edge import DeviceError, Resources, score_lot

GPU = Resources(
    backend="tensorrt",  # or "cuda": ONNX Runtime on the GPU, which needs no engine
    scorer="cuda",
    device_memory=4_000_000_000,  # bytes for comparing; left out, nine tenths of what is free
)


def main(lot: str, bundle: str) -> None:
    """Print the worst images, or why the GPU cannot be used and what runs without one."""
    try:
        result = score_lot(lot, bundle, resources=GPU)
    except DeviceError as error:
        print(f"no GPU can be used: {error}")
        print("'musc-edge doctor' says what is missing; Resources() takes the best that works here.")
        return
    print(result)
    print(f"the ViT by {result.run.backend}, compared by {result.run.scorer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
