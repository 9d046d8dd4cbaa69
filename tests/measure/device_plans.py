"""The table of memory plans in docs/gpu.md: what is on a GPU at once, for usual boards, lots and ViTs.

python tests/measure/device_plans.py

Arithmetic alone; a tenth of each board's memory is left to others, as when a lot is scored.
"""

from __future__ import annotations

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.gpu.plan import make_device_plan
from musc_edge.runtime.memory import size_text
from musc_edge.runtime.scoring.plan import LotSize

VITS = {
    "ViT-L/14-336 at 518": (1369, 1024),
    "ViT-L/14-336 at 336": (576, 1024),
    "ViT-S/14 at 224": (256, 384),
}
BOARDS = (8, 16, 24, 64)
LOTS = (50, 100, 200, 500, 1000, 2000)


def cell(patches: int, width: int, images: int, board: int) -> str:
    """'2.0 GB', how often a pair is compared, C if tokens are copied and R if again for each degree."""
    size = LotSize(4, images, patches, width, 2, 3, images - 1)
    try:
        plan = make_device_plan(size, board * 10**9 * 9 // 10)
    except LotError:
        return "too small"
    often = "" if plan.comparisons == 1 else f", {plan.comparisons:.2f} x"
    again = ", R" if not plan.holds_tokens and plan.ring * plan.block < images else ""
    there = "" if plan.holds_tokens else ", C"
    return size_text(plan.memory_bytes) + often + (again or there)


def main() -> None:
    for name, (patches, width) in VITS.items():
        print(f"\n| {name}, N | " + " | ".join(f"{board} GB" for board in BOARDS) + " |")
        print("|---" * (len(BOARDS) + 1) + "|")
        for images in LOTS:
            cells = (cell(patches, width, images, board) for board in BOARDS)
            print(f"| {images} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
