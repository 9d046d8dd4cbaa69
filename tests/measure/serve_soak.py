"""Send thousands of images to ``musc-edge serve`` from a few clients, and see that nothing grows.

    python tests/measure/serve_soak.py [--images 20000] [--clients 4]                      # with the tiny ViT
    python tests/measure/serve_soak.py --images 1000 --lot LOT_DIR -b BUNDLE               # with a real one

Prints a table: after how many images the server held how much memory, how many open files and threads, and
how long requests took since the line before.  Each client has one connection.  Then the log is read: each
image must be in it once.  Clients and other work share the machine, so times are upper bounds.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge import ReferenceOptions, make_reference
from musc_edge.runtime.images.listing import list_lot
from support.references import BUNDLE, part, write_lot
from support.served import Server, read, serving

LINES = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--lot")
    parser.add_argument("-b", "--bundle", default=str(BUNDLE))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = pictures(args.lot, root)
        options = ReferenceOptions(images=13, hold_out=0.5)
        make_reference(args.lot or root / "lot", args.bundle, root / "ref", options=options)
        arguments = ("--reference", f"part={root / 'ref'}", "-b", args.bundle, "-o", root / "out")
        with serving(*arguments, new=True) as server:
            soak(server, images, args.images, args.clients)
            code = server.stop()
        lines = (root / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
        print(f"\nended with code {code}; {len(lines)} results of {args.images} images in the log")
        assert (code, len(lines)) == (0, args.images)


def pictures(lot: str | None, root: Path) -> list[bytes]:
    """The images that are sent, again and again."""
    if lot:
        return [image.local.read_bytes() for image in list_lot(lot)]
    write_lot(root / "lot", 40)
    made = []
    for seed in range(100, 140):
        content = io.BytesIO()
        part(seed, spot=120 if seed % 10 == 0 else 0).save(content, "PNG")
        made.append(content.getvalue())
    return made


def soak(server: Server, images: list[bytes], total: int, clients: int) -> None:
    """Send ``total`` images, and print a line after each tenth of them."""
    numbers, seconds, statuses, turn = count(), list[float](), Counter[int](), Lock()
    step = max(1, total // LINES)
    print("| images | MB | open files | threads | p50 ms | p99 ms | longest ms | images per s |")
    print("|---|---|---|---|---|---|---|---|")
    begun = time.monotonic()

    def client() -> None:
        nonlocal begun
        connection = server.connection()
        while (number := next(numbers)) < total:
            sent = time.monotonic()
            body = images[number % len(images)]
            headers = {"Content-Type": "image/png", "Idempotency-Key": f"soak-{number}"}
            connection.request("POST", f"/v1/check?name={number}.png", body, headers)
            status = read(connection).status
            with turn:
                seconds.append(time.monotonic() - sent)
                statuses[status] += 1
                if sum(statuses.values()) % step == 0:
                    print(line(server, sum(statuses.values()), seconds, time.monotonic() - begun), flush=True)
                    seconds.clear()
                    begun = time.monotonic()
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        for client_done in [pool.submit(client) for _ in range(clients)]:
            client_done.result()
    print(f"\nanswers: {dict(statuses)}")


def line(server: Server, done: int, seconds: list[float], passed: float) -> str:
    """A line of the table."""
    process = Path("/proc") / str(server.process.pid)
    status = dict(row.split(":", 1) for row in (process / "status").read_text(encoding="utf-8").splitlines())
    memory = int(status["VmRSS"].split()[0]) / 1024
    files = len(list((process / "fd").iterdir()))
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    times = [1000 * value for value in (statistics.median(seconds), cuts[98], max(seconds))]
    shown = " | ".join(f"{value:.0f}" for value in times)
    held = f"{done} | {memory:.0f} | {files} | {status['Threads'].strip()}"
    return f"| {held} | {shown} | {len(seconds) / passed:.1f} |"


if __name__ == "__main__":
    main()
