"""Open what compares single images with the bank of a reference: the GPU, or the CPU."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from .. import scorers
from ..errors import DeviceError, device_errors
from ..gpu.row import DeviceRow, row_bytes
from ..memory import size_text
from ..scoring.blas import one_thread_per_product
from ..scoring.row import ImageScorer, RowScorer, WholeBank
from ..settings import AUTO, RESIDUAL, Resources
from ..types import Bundle, FloatArray
from .files import ReferenceFolder, open_bank, read_array, read_inside, require_room
from .manifest import layer_file
from .residual_bank import open_common


def open_image_scorers(
    stack: ExitStack, reference: ReferenceFolder, resources: Resources, bundle: Bundle
) -> tuple[list[ImageScorer], list[str]]:
    """Open the scorer that ``resources`` name for the bank of ``reference``, until ``stack`` is left.

    There is one for each tile, on the CPU, or one.
    "auto" takes the GPU if there is one that works and has the memory, and if the bank holds whole images.
    Returns it with notes for the user.

    Raises
    ------
    DeviceError
        If the GPU was asked for and cannot be used, or a precision that is for lots, or a scorer by residual.
    LotError
        If the bank is larger than the memory budget.
    ReferenceFolderError
        If the reference is damaged.
    """
    scorers.require_half(resources)
    parts = reference.manifest.parts
    if reference.manifest.by == RESIDUAL:
        scorers.require_meaning(RESIDUAL, resources)
        stack.enter_context(one_thread_per_product(resources.workers))
        require_room(reference, resources)
        return [stack.enter_context(open_common(reference, resources, part)) for part in parts], []
    notes: list[str] = []
    if resources.scorer == "cuda" and not reference.manifest.whole:
        raise DeviceError(
            f"{reference.root} keeps some patches of each image, which are compared on the CPU. Use --scorer "
            "auto, or a reference made without --patches."
        )
    if resources.scorer == "cuda" and reference.manifest.tiles:
        raise DeviceError(
            f"{reference.root} keeps a bank for each tile, which are compared on the CPU. Use --scorer auto."
        )
    if resources.scorer in (AUTO, "cuda") and reference.manifest.whole and not reference.manifest.tiles:
        with ExitStack() as trial:
            try:
                row = _open_on_gpu(trial, reference, resources, bundle, notes)
            except DeviceError as error:
                if resources.scorer == "cuda":
                    raise
                notes.append(f"the GPU does not compare the images: {error}")
                row = None
            if row:
                stack.enter_context(trial.pop_all())
                return [row], notes
    stack.enter_context(one_thread_per_product(resources.workers))
    require_room(reference, resources)
    rows, first = list[ImageScorer](), None
    for part in parts:
        bank = open_bank(reference, resources, part, first)
        first = first or (bank if isinstance(bank, WholeBank) else None)
        rows.append(stack.enter_context(RowScorer(bank, resources.workers)))
    return rows, notes


@device_errors()
def _open_on_gpu(
    stack: ExitStack, reference: ReferenceFolder, resources: Resources, bundle: Bundle, notes: list[str]
) -> DeviceRow | None:
    """Bring the bank to the GPU; None if "auto" finds none."""
    device = scorers.open_gpu_for(resources.scorer, bundle, stack, notes)
    if device is None:
        return None
    m = reference.manifest
    shape = len(m.layers), len(m.images), m.grid[0] * m.grid[1], m.token_width
    needed = row_bytes(shape, len(m.degrees), m.method.results)
    free = device.run(lambda gpu: gpu.free_memory())
    room = min(free, resources.device_memory or free)
    if needed > room:
        raise DeviceError(
            f"the bank of {reference.root} takes {size_text(needed)} on the GPU, which has {size_text(room)} "
            "for it. Make a smaller reference with --images, or use --scorer auto."
        )

    def layer(number: int) -> FloatArray:
        return read_array(reference.root, m, layer_file(m.layers[number])).astype(np.float32, copy=False)

    inside = read_inside(reference.root, m)
    return stack.enter_context(DeviceRow(m.method, device, shape, layer, inside))
