"""Wheels that travel in pieces to a machine without a network: packed here, put together there.

    python tests/gpu/wheels.py WHEEL FOLDER     packs a wheel into pieces of at most 55 MB

A folder of wheels may hold wheels as they are and packed ones, as ``NAME.whl.xz.000``, ``.001``, ...
"""

from __future__ import annotations

import lzma
import shutil
import sys
from pathlib import Path

MOST = 55_000_000
"""Bytes of a piece."""


def pack(wheel: Path, folder: Path, most: int = MOST) -> list[Path]:
    """Compress a wheel into numbered pieces of at most ``most`` bytes in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = lzma.compress(wheel.read_bytes(), preset=6)
    pieces = []
    for number, start in enumerate(range(0, len(packed), most)):
        pieces.append(folder / f"{wheel.name}.xz.{number:03d}")
        pieces[-1].write_bytes(packed[start : start + most])
    return pieces


def wheels_in(folder: Path, unpacked: Path) -> list[Path]:
    """The wheels of a folder; packed ones are put together in the folder ``unpacked``.

    Raises
    ------
    ValueError
        If there is none, or a piece of one is missing.
    """
    wheels = sorted(folder.glob("*.whl"))
    names = sorted({path.name.rpartition(".xz.")[0] for path in folder.glob("*.whl.xz.*")})
    for name in names:
        pieces = sorted(folder.glob(f"{name}.xz.*"))
        there = ", ".join(path.name for path in pieces)
        if [path.suffix for path in pieces] != [f".{number:03d}" for number in range(len(pieces))]:
            raise ValueError(f"pieces of {name} are missing: {there} are there")
        wheels.append(unpacked / name)
        _put_together(pieces, wheels[-1])
    if not wheels:
        raise ValueError(f"{folder} has no wheel: expected *.whl, or pieces *.whl.xz.000, *.whl.xz.001, ...")
    return wheels


def _put_together(pieces: list[Path], wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True)
    joined = wheel.with_suffix(".xz")
    with joined.open("wb") as target:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, target)
    try:
        with lzma.open(joined) as source, wheel.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (lzma.LZMAError, EOFError) as error:
        wheel.unlink(missing_ok=True)
        why = f"pieces of {wheel.name} do not fit together, or the last is missing: {error}"
        raise ValueError(why) from None
    finally:
        joined.unlink()


if __name__ == "__main__":
    for piece in pack(Path(sys.argv[1]), Path(sys.argv[2])):
        print(piece)
