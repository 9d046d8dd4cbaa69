"""Ask a running ``musc-edge serve`` to check an image: ``ask_server.py http://127.0.0.1:8080 IMAGE``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen


def check(server: str, image: Path, token: str = "") -> dict[str, object]:
    """Return the result of an image; asking again, as after a lost connection, gives the same one."""
    content = image.read_bytes()
    headers = {
        "Content-Type": "image/png",  # any image/ will do: the bytes decide
        "Idempotency-Key": hashlib.sha256(content).hexdigest(),  # or the number of the part
        "Authorization": f"Bearer {token}",
    }
    request = Request(f"{server}/v1/check?name={quote(image.name)}", content, headers)
    with urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def main(server: str, image: str) -> None:
    """Print the verdict on an image."""
    result = check(server, Path(image))
    print(f"{result['image']}: {result['verdict']}, raw score {result['raw_score']}, p {result['p']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
