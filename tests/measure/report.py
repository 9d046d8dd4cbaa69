"""What the report weighs, and what a moved limit costs: python tests/measure/report.py [FOLDER OF IMAGES].

Writes a report of 500 images (those of the folder, again and again; random ones without it), one of 2,000
without pictures, and drags the limit of the latter in headless Chromium.  Scripting is counted in time of the
processor, which other programs of this machine do not lengthen.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from musc_edge.runtime.results.report.content import colour_maps, encoded
from musc_edge.runtime.results.report.html import page as html_page
from musc_edge.runtime.results.report.write import write_report
from support.browser import launched, opened
from support.lots import lot_result

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

IMAGES, ROWS, GRID, DRAGS = 500, 2000, (37, 37), 120


def weigh(folder: Path, sources: list[Path]) -> None:
    """Print the size of a report of ``IMAGES`` images, and the seconds that it takes."""
    names = [f"{i:04}.png" for i in range(IMAGES)]
    lot_result(folder / "lot", names).save(folder / "out")
    for name, source in zip(names, sources * IMAGES, strict=False):
        with Image.open(source) as picture:
            picture.convert("RGB").save(folder / "lot" / name)
    start = time.perf_counter()
    files = write_report(folder / "out")
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in files if path.is_file())
    print(f"{IMAGES} images: {size / 1e6:.1f} MB in {len(files)} file, {seconds:.1f} s (limit: 25 MB)")


def content() -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[dict[str, Any]]]]]:
    """The content of a page of ``ROWS`` images with maps, and no pictures."""
    draw = np.random.default_rng(0)
    images = [
        {
            "name": f"line{i % 4}/image{i:04}.png", "status": "ok", "verdict": "", "error": "", "raw": score,
            "score": score, "grid": list(GRID),
            "map": encoded(draw.uniform(0.2, score, GRID).astype(np.float32)),
        }
        for i, score in enumerate(draw.gumbel(0.45, 0.04, ROWS).clip(0.3, 1.2).tolist())
    ]  # fmt: skip
    facts = {
        "name": "", "lot": "lot", "found": False, "scale": {"low": 0.3, "high": 0.9}, "warnings": [],
        "notes": [], "settings": {}, "bundle": {"sha256": "0", "backbone": "a ViT"},
    }  # fmt: skip
    return {"version": "1", "colours": colour_maps()}, [(facts, images)]


DRAG = """async (step) => {
    const handle = document.querySelector(".handle.reject");
    const box = handle.parentElement.getBoundingClientRect();
    handle.setPointerCapture = () => {};
    handle.hasPointerCapture = () => true;
    const clientX = box.left + box.width * (0.5 + 0.45 * Math.sin(step / 7));
    handle.dispatchEvent(new PointerEvent("pointermove", { pointerId: 1, clientX, bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return document.querySelectorAll("#images *").length;
}"""


def drag(folder: Path) -> None:
    """Print the milliseconds of scripting for each step of a limit that is dragged, and the live nodes."""
    (folder / "rows.html").write_bytes(b"".join(html_page(*content())))
    with launched() as browser:
        for width, height in ((1280, 800), (3840, 2160)):
            for rejects in (False, True):
                with opened(
                    browser, folder / "rows.html", viewport={"width": width, "height": height}
                ) as page:
                    times, nodes = _dragged(page, rejects)
                shown = "rejects alone" if rejects else "all images"
                print(f"{ROWS} rows, {width} x {height}, {shown}: {times}; at most {nodes} live nodes")


def _dragged(page: Page, rejects: bool) -> tuple[str, int]:
    """Drag the limit, with all images or the rejects alone in sight."""
    page.evaluate("scrollTo(0, 600)")
    if rejects:
        page.locator("#limit").fill("0.6")
        page.keyboard.press("Enter")
        page.locator('.count[data-name="reject"]').click()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    times, nodes = [], 0
    for step in range(DRAGS):
        before = _scripting(session)
        nodes = max(nodes, page.evaluate(DRAG, step))
        times.append(1000 * (_scripting(session) - before))
    times.sort()
    late = times[int(0.95 * len(times))]
    return f"scripting {statistics.median(times):.1f} ms, 95 % {late:.1f} ms, most {times[-1]:.1f} ms", nodes


def _scripting(session: CDPSession) -> float:
    """Seconds of scripting since the page was opened."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "ScriptDuration"))


def main() -> None:
    """Measure both."""
    sources = sorted(Path(sys.argv[1]).rglob("*.*")) if len(sys.argv) > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        weigh(Path(folder), [path for path in sources if path.suffix in (".png", ".jpg")])
        drag(Path(folder))


if __name__ == "__main__":
    main()
