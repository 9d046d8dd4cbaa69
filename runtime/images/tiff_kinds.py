"""Which TIFF files are read, and by whom: the one place that decides.

Pillow reads what it reads right, with libtiff.  All other kinds are put together by ``tiff_pixels`` from
strips or tiles whose bytes libtiff unpacks, or which imagecodecs decodes, which is optional.  What neither
reads is refused by its name.
"""

from __future__ import annotations

from .image_bytes import ImageError
from .tiff_page import TiffPage

PACKED = {
    1: "none",
    5: "LZW",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34925: "LZMA",
    50000: "ZSTD",
}
"""Compressions of bytes, which say nothing of what the bytes are."""

PICTURES = {
    7: "jpeg",
    33003: "jpeg2000",
    33004: "jpeg2000",
    33005: "jpeg2000",
    34712: "jpeg2000",
    34887: "lerc",
    50001: "webp",
    50002: "jpegxl",
    52546: "jpegxl",
}
"""Compressions that make a small picture of each strip or tile; imagecodecs decodes them."""

OLD_JPEG, JPEG = 6, 7
_FAX = (2, 3, 4)
_OTHERS = {
    9: "JBIG", 10: "JBIG", 22610: "JPEG XR", 32766: "NeXT", 32767: "Sony ARW", 32769: "packed Nikon NEF",
    32809: "ThunderScan", 32895: "IT8", 34661: "JBIG", 34676: "SGILog", 34677: "SGILog", 34713: "Nikon NEF",
    34718: "Microsoft document", 34892: "lossy DNG", 34934: "JPEG XR", 48124: "Pentax PEF", 65000: "EER",
    65001: "EER", 65002: "EER", 65535: "Kodak DCR",
}  # fmt: skip

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB, ITULAB = 0, 1, 2, 3, 5, 6, 8, 9, 10
_READ = {
    # what a pixel is: bits of a sample, and what it is called
    WHITE_IS_ZERO: (range(1, 17), "gray"),
    BLACK_IS_ZERO: (range(1, 17), "gray"),
    RGB: (range(1, 17), "RGB"),
    PALETTE: (range(1, 17), "palette"),
    CMYK: ((8, 16), "CMYK"),
    YCBCR: ((8,), "YCbCr"),
    CIELAB: ((8, 16), "CIELab"),
    ICCLAB: ((8, 16), "ICCLab"),
}
_NOT_READ = {
    4: "a transparency mask",
    ITULAB: "ITU Lab colours",
    32803: "raw data of a sensor (a colour filter array, as in DNG)",
    32844: "LogL pixels, which have no known white",
    32845: "LogLuv pixels, which have no known white",
    34892: "linear raw data of a sensor (as in DNG)",
    51177: "a depth map",
    52527: "a semantic mask",
}
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "unsigned", 5: "complex", 6: "complex"}

# Photometric, bits, samples and their ExtraSamples, in one byte order of bits: what Pillow reads right.
_NONE: tuple[tuple[int, ...] | None, ...] = (None, ())
_ALPHA = (*_NONE, (0,), (1,), (2,))
_BY_PILLOW = {
    **{(kind, bits, 1): _NONE for kind in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) for bits in (1, 2, 4, 8)},
    (RGB, 8, 3): _NONE,
    (RGB, 8, 4): _ALPHA,
    (RGB, 8, 5): ((1, 0), (2, 0)),
    (RGB, 8, 6): ((1, 0, 0), (2, 0, 0)),
    (CMYK, 8, 4): _NONE,
    (CIELAB, 8, 3): _NONE,
}
_PILLOW_PACKED = (1, 5, 8, 32773, 32946, 34925, 50000)


def decoder_of(page: TiffPage) -> str:
    """Return who decodes a page (see ``decoders``).

    Raises
    ------
    ImageError
        If nobody does; the reason says what the file is.
    """
    _require_known_scale(page)
    _require_known_colours(page)
    if page.compression == OLD_JPEG:
        return "old jpeg"
    if page.compression not in PACKED and page.compression not in PICTURES and page.compression not in _FAX:
        name = _OTHERS.get(page.compression, f"number {page.compression}")
        raise ImageError("unsupported", f"a TIFF compressed by {name}, which is not read; save it as PNG")
    _require_predictor(page)
    return "pillow" if _by_pillow(page) else "tiff"


def _require_known_scale(page: TiffPage) -> None:
    """Raise ImageError if it is not known which values are black and white."""
    bits, kind = max(page.bits), _FORMATS.get(max(page.formats), "unknown")
    if kind == "floating-point":
        raise _scale(f"{bits}-bit floating-point pixels have no known white")
    if kind != "unsigned":
        raise _scale(f"{bits}-bit {kind} pixels have no known black and white")
    if bits > 16:
        raise _scale(f"{bits}-bit pixels have no known white")
    if len(set(page.bits)) > 1 or bits < 1:
        sizes = ", ".join(str(each) for each in page.bits)
        raise ImageError(
            "unsupported", f"a TIFF with samples of {sizes} bits, which is not read; save it as PNG"
        )


def _scale(what: str) -> ImageError:
    return ImageError("unsupported", f"{what}; save the lot with 8 or 16 bits")


def _require_known_colours(page: TiffPage) -> None:
    """Raise ImageError if it is not known what colour the samples are."""
    if page.photometric in _NOT_READ:
        raise ImageError("unsupported", f"a TIFF of {_NOT_READ[page.photometric]}, not of pixels to look at")
    bits, name = _READ.get(page.photometric, ((), f"photometric {page.photometric}"))
    if page.subfile & 1:
        raise ImageError(
            "unsupported", "a TIFF whose first page is the preview of another, as of a raw photograph"
        )
    if page.bits[0] not in bits:
        raise ImageError("unsupported", f"a TIFF of {page.bits[0]}-bit {name} pixels, which is not read")
    if page.photometric == CMYK and page.ink_set == 2:
        raise ImageError("unsupported", "a TIFF of inks that are not cyan, magenta, yellow and black")
    needed = {"RGB": 3, "CMYK": 4, "YCbCr": 3, "CIELab": 3, "ICCLab": 3}.get(name, 1)
    if page.samples < needed and page.compression not in (OLD_JPEG, JPEG):
        raise ImageError("unreadable", f"{name} pixels of {page.samples} samples")
    if name == "gray" and page.samples > 2 and page.alpha is None:
        raise ImageError(
            "unsupported",
            f"{page.samples} samples per pixel, of which the file says that one is gray, but not what the "
            "others are; save one picture per file, as gray or RGB",
        )


def _require_predictor(page: TiffPage) -> None:
    """Raise ImageError if values are stored as differences that are not known here."""
    known = page.predictor == 1 or (page.predictor == 2 and page.bits[0] in (8, 16))
    # libtiff takes no notice of the tag where it has no meaning.
    if page.compression in PACKED and page.compression not in (1, 32773) and not known:
        bits = page.bits[0]
        raise ImageError("unsupported", f"a TIFF of {bits}-bit samples with predictor {page.predictor}")


def _by_pillow(page: TiffPage) -> bool:
    """Return whether Pillow is known to read pages of this kind right."""
    big = page.directory.layout.big and page.directory.layout.order == ">"
    low_palette = page.photometric == PALETTE and page.low_palette
    if not page.chunky or page.reversed_bits or big or low_palette:
        return page.compression in _FAX  # of which libtiff has the only decoder
    if page.compression in _FAX:
        return True
    if page.compression == JPEG and page.bits[0] == 8 and page.photometric in (BLACK_IS_ZERO, RGB, YCBCR):
        return page.samples == (1 if page.photometric == BLACK_IS_ZERO else 3)
    if page.photometric == YCBCR and page.compression == 1 and page.fine_colours:
        return (page.bits[0], page.samples) == (8, 3) and page.extra in _NONE
    extra = _BY_PILLOW.get((page.photometric, page.bits[0], page.samples), ())
    return page.compression in _PILLOW_PACKED and page.extra in extra
