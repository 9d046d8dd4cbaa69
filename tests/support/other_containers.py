"""Cases of the image matrix: all formats but TIFF."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from support import containers as raw
from support.image_matrix import ALPHA, HEIGHT, TURN, WIDTH, Case, content, levels, picture, product, shown
from support.lots import Array

DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour types of a PNG, and bits of a sample."""


# ---- PNG -------------------------------------------------------------------------------------


def png() -> Iterator[Case]:
    """Every colour type and depth, interlaced or not, with and without a transparent colour."""
    for colour_type, interlaced in product(DEPTHS, (False, True)):
        for bits in DEPTHS[colour_type]:
            name = f"type {colour_type}, {bits} bits{', interlaced' * interlaced}"
            if colour_type == 3:
                yield from _png_palette(bits, interlaced, name)
                continue
            full = 2**bits - 1
            values = levels(picture(1 if colour_type in (0, 4) else 3), bits).astype(np.uint16)
            expected = shown(values, full)
            if colour_type < 4:
                yield Case(
                    "PNG",
                    name,
                    content(raw.png(values, bits, colour_type, interlaced=interlaced)),
                    expected,
                    suffix=".png",
                )
                key = values[3, 4]
                clear = (values == key).all(-1, keepdims=True)
                mark = raw.chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
                data = raw.png(values, bits, colour_type, mark, interlaced=interlaced)
                yield Case(
                    "PNG with a transparent colour",
                    name,
                    content(data),
                    np.where(clear, 255, expected),
                    suffix=".png",
                )
                continue
            alpha = np.round(ALPHA * full).astype(np.uint16)[..., None]
            share = alpha / full
            data = raw.png(np.concatenate([values, alpha], -1), bits, colour_type, interlaced=interlaced)
            yield Case("PNG", name, content(data), expected * share + 255 * (1 - share), 1.1, suffix=".png")
            data = raw.png(np.concatenate([values, 0 * alpha], -1), bits, colour_type, interlaced=interlaced)
            yield Case("PNG with alpha 0 everywhere", name, content(data), expected, suffix=".png")


def _png_palette(bits: int, interlaced: bool, name: str) -> Iterator[Case]:
    colours = levels(np.random.default_rng(bits).random((2**bits, 3)), 8)
    alpha = np.linspace(255, 0, 2**bits).astype(np.uint8)
    indices = levels(picture(1), bits).astype(np.uint16)
    expected, share = colours[indices[..., 0]].astype(float), alpha[indices] / 255
    table = raw.chunk(b"PLTE", colours.tobytes())
    clear = table + raw.chunk(b"tRNS", alpha.tobytes())
    yield Case(
        "PNG", name, content(raw.png(indices, bits, 3, table, interlaced=interlaced)), expected, suffix=".png"
    )
    data = raw.png(indices, bits, 3, clear, interlaced=interlaced)
    over_white = expected * share + 255 * (1 - share)
    yield Case("PNG with a transparent colour", name, content(data), over_white, 1.1, suffix=".png")


def exif_block(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<LHHHLLL", 8, 1, 274, 3, 1, orientation, 0)


def xmp_text(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def png_marks(orientation: int) -> dict[str, bytes]:
    """Chunks that say how a PNG is turned."""
    block = exif_block(orientation)
    text = b"\nexif\n%8d\n" % (len(block) + 6) + (b"Exif\0\0" + block).hex().encode()
    name = b"Raw profile type exif\0"
    xmp = b"XML:com.adobe.xmp\0"
    return {
        "eXIf": raw.chunk(b"eXIf", block),
        "tEXt": raw.chunk(b"tEXt", name + text),
        "zTXt": raw.chunk(b"zTXt", name + b"\0" + zlib.compress(text)),
        "iTXt": raw.chunk(b"iTXt", xmp + b"\0\0\0\0" + xmp_text(orientation)),
        "packed iTXt": raw.chunk(b"iTXt", xmp + b"\1\0\0\0" + zlib.compress(xmp_text(orientation))),
    }


def png_turned() -> Iterator[Case]:
    """Orientation before and behind the pixels, in all the ways that are written."""
    for orientation, bits, behind in product(TURN, (8, 16), (False, True)):
        values = levels(picture(3), bits)
        for mark, chunk in png_marks(orientation).items():
            before, after = (b"", chunk) if behind else (chunk, b"")
            expected = TURN[orientation](shown(values, 2**bits - 1))
            name = f"{orientation}, {bits} bits, {mark} {'behind' if behind else 'before'} the pixels"
            yield Case(
                "PNG turned", name, content(raw.png(values, bits, 2, before, after)), expected, suffix=".png"
            )


# ---- BMP -------------------------------------------------------------------------------------

FIELDS = {
    "555": (16, (0x7C00, 0x3E0, 0x1F)), "565": (16, (0xF800, 0x7E0, 0x1F)), "444": (16, (0xF00, 0xF0, 0xF)),
    "565 as BGR": (16, (0x1F, 0x7E0, 0xF800)), "888": (32, (0xFF0000, 0xFF00, 0xFF)),
    "888 as BGR": (32, (0xFF, 0xFF00, 0xFF0000)), "888 above": (32, (0xFF000000, 0xFF0000, 0xFF00)),
    "10 bits each": (32, (0x3FF00000, 0xFFC00, 0x3FF)),
}  # fmt: skip


def bmp() -> Iterator[Case]:
    """Palettes, 24 bits, fields of bits, each header, both directions, BMP and DIB."""
    rgb = levels(picture(3), 8)
    for upwards, dib in product((True, False), (False, True)):
        where = f"{'up' if upwards else 'down'}wards{', DIB' * dib}"
        suffix = ".dib" if dib else ".bmp"
        for header in (40, 52, 56, 64, 108, 124) if dib else (12, 40, 52, 56, 64, 108, 124):
            if header == 12 and not upwards:
                continue
            data = raw.bmp(rgb[..., ::-1], 24, header=header, upwards=upwards, as_dib=dib)
            yield Case(
                "BMP", f"24 bits, header {header}, {where}", content(data), rgb.astype(float), suffix=suffix
            )
        for bits in (1, 4, 8):
            colours = levels(np.random.default_rng(bits).random((2**bits, 3)), 8)
            indices = levels(picture(1)[..., 0], bits)
            data = raw.bmp(indices, bits, upwards=upwards, palette=colours, as_dib=dib)
            yield Case(
                "BMP",
                f"palette of {bits} bits, {where}",
                content(data),
                colours[indices].astype(float),
                suffix=suffix,
            )
        for name, (bits, masks) in FIELDS.items():
            words, expected = _words(masks)
            for header in (40, 108):
                data = raw.bmp(words, bits, masks, header, upwards, as_dib=dib)
                yield Case(
                    "BMP of fields",
                    f"{name}, header {header}, {where}",
                    content(data),
                    expected,
                    1.01,
                    suffix=suffix,
                )
        words, expected = _words((0x7C00, 0x3E0, 0x1F))
        data = raw.bmp(words, 16, upwards=upwards, as_dib=dib)
        yield Case(
            "BMP of fields", f"16 bits without fields, {where}", content(data), expected, 1.01, suffix=suffix
        )
        words, expected = _words((0xFF0000, 0xFF00, 0xFF))
        data = raw.bmp(words, 32, upwards=upwards, as_dib=dib)
        yield Case("BMP", f"32 bits without fields, {where}", content(data), expected, suffix=suffix)


def _words(masks: tuple[int, ...]) -> tuple[Array, Array]:
    """The picture in fields of bits (H,W), and how it must look."""
    words, seen = np.zeros((HEIGHT, WIDTH), np.uint32), []
    for k, mask in enumerate(masks):
        low = mask & -mask
        values = np.round(picture(3)[..., k] * (mask // low)).astype(np.uint32)
        words |= values * np.uint32(low)
        seen.append(values * (255 / (mask // low)))
    return words, np.stack(seen, -1)


def bmp_alpha() -> Iterator[Case]:
    """Alpha in fields, and alpha that is 0 everywhere."""
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    words, expected = _words(masks[:3])
    alpha = np.round(ALPHA * 255).astype(np.uint32)
    share = (alpha / 255)[..., None]
    for header in (56, 108, 124):
        data = raw.bmp(words | alpha << 24, 32, masks, header)
        over = expected * share + 255 * (1 - share)
        yield Case("BMP with alpha", f"header {header}", content(data), over, 1.1, suffix=".bmp")
        data = raw.bmp(words, 32, masks, header)
        yield Case("BMP with alpha 0 everywhere", f"header {header}", content(data), expected, suffix=".bmp")
    for bits, four in ((8, False), (4, True)):
        colours = levels(np.random.default_rng(bits).random((2**bits, 3)), 8)
        indices = levels(picture(1)[..., 0], bits)
        plain = raw.bmp(indices, bits, palette=colours)
        start = 54 + 4 * len(colours)
        packed = raw.run_lengths(indices, four)
        data = plain[:30] + struct.pack("<LL", 2 if four else 1, len(packed)) + plain[38:start] + packed
        yield Case(
            "BMP run-length-encoded",
            f"{bits} bits",
            content(data),
            colours[indices].astype(float),
            suffix=".bmp",
        )
    plain = raw.bmp(
        levels(picture(1)[..., 0], 8), 8, palette=levels(np.random.default_rng(0).random((256, 3)), 8)
    )
    for packing, why in ((4, "holds a JPEG"), (5, "holds a PNG"), (11, "number 11")):
        data = plain[:30] + struct.pack("<L", packing) + plain[34:]
        yield Case(
            "BMP of something else", f"compression {packing}", content(data), reason=why, suffix=".bmp"
        )


# ---- Netpbm ----------------------------------------------------------------------------------


def netpbm() -> Iterator[Case]:
    """P1 to P7 on the scale of their own largest value."""
    head = b"# a comment\n%d %d\n" % (WIDTH, HEIGHT)
    bilevel = (picture(1)[..., 0] < 0.5).astype(np.uint16)
    ink = shown(1 - bilevel, 1)
    text = b"\n".join(b" ".join(b"%d" % v for v in row) for row in bilevel)
    yield Case("Netpbm", "P1", content(b"P1\n" + head + text), ink, suffix=".pbm")
    yield Case(
        "Netpbm", "P1 without spaces", content(b"P1\n" + head + text.replace(b" ", b"")), ink, suffix=".pbm"
    )
    yield Case("Netpbm", "P4", content(b"P4\n" + head + raw.packed_rows(bilevel, 1)), ink, suffix=".pbm")
    for channels, white in product((1, 3), (1, 3, 100, 255, 256, 1000, 1023, 4095, 16383, 65535)):
        values = np.round(picture(channels) * white).astype(np.uint16)
        data = values.astype(np.uint8 if white < 256 else ">u2").tobytes()
        suffix, expected = ".pgm" if channels == 1 else ".ppm", shown(values, white)
        start = head + b"%d\n" % white
        text = b"\n".join(b" ".join(b"%d" % v for v in row) for row in values.reshape(HEIGHT, -1))
        for kinds, body in ((b"P5P6", data), (b"P2P3", text)):
            kind = kinds[:2] if channels == 1 else kinds[2:]
            file = content(kind + b"\n" + start + body)
            yield Case("Netpbm", f"{kind.decode()}, {white}", file, expected, suffix=suffix)
        for alpha in (False, True):
            yield _pam(values, white, alpha, expected)
    yield Case(
        "Netpbm of something else",
        "PFM",
        content(b"Pf\n24 17\n-1.0\n" + bytes(4 * 24 * 17)),
        reason="floating-point",
    )


def _pam(values: Array, white: int, alpha: bool, expected: Array) -> Case:
    kind = "GRAYSCALE" if values.shape[2] == 1 else "RGB"
    if alpha:
        share = np.round(ALPHA * white)[..., None]
        values = np.concatenate([values, share.astype(np.uint16)], -1)
        expected = expected * (share / white) + 255 * (1 - share / white)
    head = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH {values.shape[2]}\nMAXVAL {white}\n"
    head += f"TUPLTYPE {kind}{'_ALPHA' * alpha}\nENDHDR\n"
    data = values.astype(np.uint8 if white < 256 else ">u2").tobytes()
    name = f"P7 {kind}{', alpha' * alpha}, {white}"
    return Case("Netpbm", name, content(head.encode() + data), expected, 1.1, suffix=".pam")


# ---- what encoders write ---------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def modes() -> dict[str, tuple[Image.Image, Array]]:
    """The picture as gray, RGB and RGBA, with what must be seen."""
    gray, rgb = levels(picture(1)[..., 0], 8), levels(picture(3), 8)
    alpha = np.round(ALPHA * 255).astype(np.uint8)[..., None]
    share = alpha / 255
    rgba = np.concatenate([rgb, alpha], -1)
    return {
        "gray": (Image.fromarray(gray), shown(gray, 255)),
        "RGB": (Image.fromarray(rgb), rgb.astype(float)),
        "RGBA": (Image.fromarray(rgba), rgb * share + 255 * (1 - share)),
    }


ARITHMETIC = base64.b85decode(
    r"|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70s;a90s;a90|NsD1_T5I1Ox~M1_cHQ2nq@b2nh)a3=a$n3l0kj2@Meq4i69z"
    r"5fBOt5)%>-6Aus&5dYf%LjeN=0|WyE2m}NO5DN(l5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$5D*X$"
    r"5D*X$5D@>#01*fP5dati0TBQK5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zfI%coNL<XU=Qy6LaEU*&(?IeGY?W7wb7"
    r"X_d6pR_2DqoXk2f^wLozsQ3`#AiR|I5;Pb#=62(7woE2Sx{g#LNpV76*c-Rt)YMi|mXs)U7>GbjIPA=0FI8~F`-3P&{s&^h"
    r"#%`0&tujQfL3Kll&t6#FT23oaY8}&l62mro{eWEU))4XJ=6qk_xAgVU|Je"
)
"""``levels(picture(3), 8)`` as JPEG of quality 92 with arithmetic coding, by libjpeg-turbo's jpegtran."""


def jpeg() -> Iterator[Case]:
    yield Case(
        "JPEG",
        "arithmetic coding",
        content(ARITHMETIC),
        levels(picture(3), 8).astype(float),
        8,
        suffix=".jpg",
    )
    for mode, quality, progressive, subsampling in product(
        ("gray", "RGB"), (95, 100), (False, True), (0, 1, 2)
    ):
        image, expected = modes()[mode]
        data = encoded(image, "JPEG", quality=quality, progressive=progressive, subsampling=subsampling)
        within = 8 if subsampling == 0 or mode == "gray" else 16
        name = f"{mode}, {quality}, subsampling {subsampling}{', progressive' * progressive}"
        yield Case("JPEG", name, content(data), expected, within, suffix=".jpg")
    inks = levels(picture(4) * np.array([0.8, 0.8, 0.8, 0.4]), 8)
    light = 1 - inks / 255
    expected = light[..., :3] * light[..., 3:] * 255
    data = encoded(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "JPEG", quality=100, subsampling=0
    )
    yield Case("JPEG", "CMYK, inverted as Adobe does", content(data), expected, 8, suffix=".jpg")
    plain = encoded(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), (255 - inks).tobytes()), "JPEG", quality=100, subsampling=0
    )
    at = plain.index(b"\xff\xee")
    plain = plain[:at] + plain[at + 2 + struct.unpack(">H", plain[at + 2 : at + 4])[0] :]
    yield Case("JPEG", "CMYK without Adobe's mark", content(plain), expected, 8, suffix=".jpg")
    image, expected = modes()["RGB"]
    data = encoded(image, "JPEG", quality=98, subsampling=0)
    for orientation in TURN:
        for mark, segment in (
            ("EXIF", b"Exif\0\0" + exif_block(orientation)),
            ("XMP", b"http://ns.adobe.com/xap/1.0/\0" + xmp_text(orientation)),
        ):
            turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
            yield Case(
                "JPEG turned",
                f"{orientation}, {mark}",
                content(turned),
                TURN[orientation](expected),
                8,
                suffix=".jpg",
            )
    yield from _jpeg_not_read(data)


def _jpeg_not_read(data: bytes) -> Iterator[Case]:
    import imagecodecs

    deep = imagecodecs.jpeg_encode(levels(picture(1)[..., 0], 12), bitspersample=12)
    yield Case("JPEG of something else", "12 bits", content(deep), reason="12-bit JPEG", suffix=".jpg")
    lossless = imagecodecs.jpeg8_encode(levels(picture(3), 8), lossless=True)
    yield Case("JPEG of something else", "lossless", content(lossless), reason="lossless JPEG", suffix=".jpg")
    jpegls = imagecodecs.jpegls_encode(levels(picture(3), 8))
    yield Case("JPEG of something else", "JPEG-LS", content(jpegls), reason="JPEG-LS", suffix=".jpg")


def webp() -> Iterator[Case]:
    for (mode, (image, expected)), (name, options, within) in product(
        modes().items(), (("lossless", {"lossless": True}, 1.1), ("lossy", {"quality": 100}, 25))
    ):
        data = encoded(image, "WEBP", **options)
        yield Case("WebP", f"{mode}, {name}", content(data), expected, within, suffix=".webp")
    image, expected = modes()["RGB"]
    data = encoded(image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(180)])
    yield Case("WebP", "animation", content(data), expected, suffix=".webp")
    for orientation in TURN:
        data = encoded(image, "WEBP", lossless=True, exif=b"Exif\0\0" + exif_block(orientation))
        yield Case(
            "WebP turned", f"{orientation}, EXIF", content(data), TURN[orientation](expected), suffix=".webp"
        )
        data = encoded(image, "WEBP", lossless=True, xmp=xmp_text(orientation))
        yield Case(
            "WebP turned", f"{orientation}, XMP", content(data), TURN[orientation](expected), suffix=".webp"
        )


def gif() -> Iterator[Case]:
    gray, expected = modes()["gray"]
    yield Case("GIF", "gray", content(encoded(gray, "GIF")), expected, suffix=".gif")
    yield Case("GIF", "interlaced", content(encoded(gray, "GIF", interlace=1)), expected, suffix=".gif")
    data = encoded(gray, "GIF", save_all=True, append_images=[gray.rotate(180)])
    yield Case("GIF", "animation", content(data), expected, suffix=".gif")
    colours = levels(np.random.default_rng(0).random((16, 3)), 8)
    indices = levels(picture(1)[..., 0], 4)
    image = Image.fromarray(indices).convert("P")
    image = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
    image.putpalette(colours.tobytes())
    expected = colours[indices].astype(float)
    yield Case("GIF", "palette", content(encoded(image, "GIF")), expected, suffix=".gif")
    clear = np.where((indices == 7)[..., None], 255, expected)
    yield Case("GIF", "transparent", content(encoded(image, "GIF", transparency=7)), clear, suffix=".gif")


def jpeg2000() -> Iterator[Case]:
    import imagecodecs

    for mode, (image, expected) in modes().items():
        for no_jp2 in (False, True):
            data = encoded(image, "JPEG2000", irreversible=False, no_jp2=no_jp2)
            name = f"{mode}, {'j2k' if no_jp2 else 'jp2'}"
            yield Case("JPEG 2000", name, content(data), expected, 1.1, suffix=".jp2")
    for bits, mode, form in product((10, 12, 14, 16), ("gray", "RGB"), ("jp2", "j2k")):
        values = levels(picture(1)[..., 0] if mode == "gray" else picture(3), bits)
        options: dict[str, Any] = {"level": 0, "reversible": True, "bitspersample": bits, "codecformat": form}
        data = bytes(imagecodecs.jpeg2k_encode(values, **options))
        name = f"{mode}, {bits} bits, {form}"
        yield Case("JPEG 2000", name, content(data), shown(values, 2**bits - 1), suffix=".jp2")
    values = levels(picture(1)[..., 0], 8).astype(np.int16).astype(np.int8)
    signed = imagecodecs.jpeg2k_encode(values, level=0, reversible=True)
    yield Case("JPEG 2000 of something else", "signed", content(signed), reason="signed", suffix=".jp2")


def jpeg_xl() -> Iterator[Case]:
    import imagecodecs

    for (mode, (image, expected)), container in product(modes().items(), (False, True)):
        data = bytes(imagecodecs.jpegxl_encode(np.asarray(image), lossless=True, usecontainer=container))
        yield Case(
            "JPEG XL", f"{mode}, 8 bits, container {container}", content(data), expected, 1.1, suffix=".jxl"
        )
    for mode in ("gray", "RGB"):
        values = levels(picture(1)[..., 0] if mode == "gray" else picture(3), 16)
        data = bytes(imagecodecs.jpegxl_encode(values, lossless=True))
        yield Case("JPEG XL", f"{mode}, 16 bits", content(data), shown(values, 65535), suffix=".jxl")
    values = picture(3).astype(np.float32)
    data = bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    yield Case("JPEG XL of something else", "float32", content(data), reason="floating-point", suffix=".jxl")


def avif_and_heic() -> Iterator[Case]:
    import imagecodecs
    import pillow_heif

    for mode, (image, expected) in modes().items():
        yield Case(
            "AVIF",
            mode,
            content(encoded(image, "AVIF", quality=100, subsampling="4:4:4")),
            expected,
            8,
            suffix=".avif",
        )
    image, expected = modes()["RGB"]
    for bits in (10, 12):
        values = levels(picture(3), bits)
        data = imagecodecs.avif_encode(values, level=100, bitspersample=bits, pixelformat="444")
        seen = shown(values, 2**bits - 1)
        yield Case("AVIF", f"{bits} bits", content(data), seen, 8, suffix=".avif")
    for orientation in TURN:
        exif = Image.Exif()
        exif[274] = orientation
        data = encoded(image, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
        yield Case(
            "AVIF turned", f"{orientation}", content(data), TURN[orientation](expected), 8, suffix=".avif"
        )
    for mode, (image, expected) in modes().items():
        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer, quality=100, chroma=444)
        yield Case("HEIC", mode, content(buffer.getvalue()), expected, 12, suffix=".heic")


def others() -> Iterator[Case]:
    """Kinds that are told by name."""
    for start, why in (
        (b"%!PS-Adobe", "EPS"), (b"%PDF-1.7", "PDF"), (b"8BPS\0\1", "PSD"), (b"\0\0\1\0", "ICO"),
        (b"\x76\x2f\x31\x01", "OpenEXR"), (b"qoif", "QOI"), (b"SIMPLE  =", "FITS"),
        (b"\0\0\0\x20ftypisom", "MP4"), (b"II\xbc\1", "JPEG XR"), (b"#?RADIANCE", "Radiance"),
    ):  # fmt: skip
        yield Case("other kinds of files", why, content(start.ljust(200, b"\0")), reason=why, suffix=".png")


PARTS = (png, png_turned, bmp, bmp_alpha, netpbm, jpeg, webp, gif, jpeg2000, jpeg_xl, avif_and_heic, others)
