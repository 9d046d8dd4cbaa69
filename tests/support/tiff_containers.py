"""Cases of the image matrix: TIFF."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from support import containers as raw
from support.image_matrix import (
    ALPHA,
    HEIGHT,
    TURN,
    WIDTH,
    Case,
    content,
    levels,
    picture,
    product,
    shown,
    tif,
)
from support.lots import Array

SIZE = (WIDTH, HEIGHT)
PACKED = (None, "lzw", "deflate", "packbits", "zstd", "lzma")
STORED: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 5},
    "one strip": {},
    "tiles": {"tile": (16, 16)},
}


def stored(photometric: str, bits: int) -> tuple[Array, Array]:
    """What is stored of the picture, and how it must look."""
    full = 2**bits - 1
    if photometric == "rgb":
        values = levels(picture(3), bits)
        return values, shown(values, full)
    values = levels(picture(1)[..., 0], bits)
    return (full - values).astype(values.dtype) if photometric == "miniswhite" else values, shown(
        values, full
    )


def plain() -> Iterator[Case]:
    """Photometric, bits, compression, predictor, strips and tiles, byte order, BigTIFF."""
    for photometric, bits, packing, layout, order, big in product(
        ("minisblack", "miniswhite", "rgb"), (8, 16), PACKED, STORED, "<>", (False, True)
    ):
        for predictor in (False, True) if packing in ("lzw", "deflate", "zstd", "lzma") else (False,):
            values, expected = stored(photometric, bits)
            options = {**STORED[layout], "compression": packing, "predictor": predictor}
            write = tif(values, photometric=photometric, byteorder=order, bigtiff=big, **options)
            name = f"{bits} bits, {packing or 'not packed'}{', predictor' * predictor}, {layout}, {order}"
            yield Case(f"{'Big' * big}TIFF {photometric}", name, write, expected)


def planar() -> Iterator[Case]:
    """Planes stored apart, with and without others than colours."""
    for bits, packing, layout, order, extra in product(
        (8, 16), PACKED, STORED, "<>", ((), ("unspecified",), ("unassalpha",), ("unspecified", "unspecified"))
    ):
        values, expected = stored("rgb", bits)
        full = 2**bits - 1
        planes, expected = _with_extra(values, expected, extra, full)
        options = {**STORED[layout], "compression": packing, "predictor": packing == "lzw"}
        if extra:
            options["extrasamples"] = extra
        write = tif(
            np.moveaxis(planes, -1, 0).copy(),
            photometric="rgb",
            planarconfig="separate",
            byteorder=order,
            **options,
        )
        name = f"{bits} bits, {packing or 'not packed'}, {layout}, {order}, {extra}"
        yield Case("TIFF with planes apart", name, write, expected, 1.01)


def extras() -> Iterator[Case]:
    """Samples that are alpha, and samples that are something else."""
    for photometric, bits, packing, layout, order, extra in product(
        ("minisblack", "rgb"), (8, 16), (None, "lzw"), STORED, "<>",
        (("unspecified",), ("assocalpha",), ("unassalpha",), ("unspecified", "unspecified"),
         ("unassalpha", "unspecified"), ("assocalpha", "unspecified")),
    ):  # fmt: skip
        values, expected = stored(photometric, bits)
        values = values.reshape(HEIGHT, WIDTH, -1)
        both, expected = _with_extra(values, expected, extra, 2**bits - 1)
        options = {**STORED[layout], "compression": packing, "predictor": packing is not None}
        write = tif(
            both,
            photometric=photometric,
            planarconfig="contig",
            extrasamples=extra,
            byteorder=order,
            **options,
        )
        name = f"{photometric}, {bits} bits, {packing or 'not packed'}, {layout}, {order}, {', '.join(extra)}"
        if photometric == "minisblack" and extra == ("unspecified", "unspecified"):
            yield Case("TIFF of one gray and unknown samples", name, write, reason="what the others are")
        else:
            yield Case("TIFF with extra samples", name, write, expected, 1.6)


def _with_extra(values: Array, expected: Array, extra: tuple[str, ...], full: int) -> tuple[Array, Array]:
    """Add samples to (H,W,samples): alpha, and others that must not matter."""
    alpha = np.round(ALPHA * full).astype(values.dtype)
    other = np.roll(values[..., :1], 5, 1)
    parts = [values]
    for kind in extra:
        parts.append(other if kind == "unspecified" else alpha[..., None])
        if kind != "unspecified":
            share = (alpha / full)[..., None]
            expected = expected * share + 255 * (1 - share)
        if kind == "assocalpha":
            parts[0] = np.round(values * share).astype(values.dtype)
    return np.concatenate(parts, -1), expected


def alpha_of_nothing() -> Iterator[Case]:
    """Alpha that is 0 everywhere is no alpha."""
    for bits, kind, packing in product((8, 16), ("assocalpha", "unassalpha"), (None, "lzw")):
        values, expected = stored("rgb", bits)
        both = np.concatenate([values, np.zeros_like(values[..., :1])], -1)
        write = tif(both, photometric="rgb", extrasamples=(kind,), compression=packing)
        yield Case("TIFF with alpha 0 everywhere", f"{bits} bits, {kind}, {packing}", write, expected)


def turned() -> Iterator[Case]:
    """Orientation."""
    for orientation, photometric, bits, packing, layout in product(
        TURN, ("minisblack", "rgb", "rgba"), (8, 16), (None, "lzw"), STORED
    ):
        values, expected = stored("rgb" if photometric == "rgba" else photometric, bits)
        options = {**STORED[layout], "compression": packing, "extratags": [(274, 3, 1, orientation, True)]}
        if photometric == "rgba":
            values = np.concatenate([values, np.full_like(values[..., :1], 2**bits - 1)], -1)
            options["extrasamples"] = ("unassalpha",)
        write = tif(values, photometric=photometric.removesuffix("a"), **options)
        name = f"{orientation}, {photometric}, {bits} bits, {packing or 'not packed'}, {layout}"
        yield Case("TIFF turned", name, write, TURN[orientation](expected))


def few_bits() -> Iterator[Case]:
    """All bits of a sample from 1 to 16, in both orders, gray and colour."""
    for bits, photometric, order, big in product(range(1, 17), (0, 1, 2), "<>", (False, True)):
        values = levels(picture(3 if photometric == 2 else 1), bits).astype(np.uint16)
        full = 2**bits - 1
        written = full - values if photometric == 0 else values
        rows = written.reshape(HEIGHT, -1)
        data = raw.rows_of(rows.astype(np.uint16), order) if bits == 16 else raw.packed_rows(rows, bits)
        samples = 3 if photometric == 2 else 1
        tags: dict[int, Any] = {258: [bits] * samples, 262: photometric, 277: samples}
        write = content(raw.Tiff(SIZE, [data], tags, order, big).content())
        name = f"{bits} bits, {('WhiteIsZero', 'gray', 'RGB')[photometric]}, {order}, {'Big' * big}TIFF"
        yield Case(
            "TIFF of 1 to 16 bits", name, write, shown(values, full), bit_depth=12 if 8 < bits < 13 else 16
        )


def reversed_bits() -> Iterator[Case]:
    """FillOrder 2."""
    table = np.array([int(f"{k:08b}"[::-1], 2) for k in range(256)], np.uint8)
    for bits, photometric in product((1, 4, 8, 12, 16), (0, 1)):
        values = levels(picture(1)[..., 0], bits).astype(np.uint16)
        full = 2**bits - 1
        written = full - values if photometric == 0 else values
        data = raw.rows_of(written.astype(np.uint16)) if bits == 16 else raw.packed_rows(written, bits)
        data = table[np.frombuffer(data, np.uint8)].tobytes()
        write = content(raw.Tiff(SIZE, [data], {258: bits, 262: photometric, 266: 2}).content())
        yield Case(
            "TIFF with bits reversed", f"{bits} bits, photometric {photometric}", write, shown(values, full)
        )


def other_colours() -> Iterator[Case]:
    """CMYK, YCbCr, CIELab, palettes."""
    for bits, order, packing in product((8, 16), "<>", (None, "lzw", "deflate")):
        full, inks = 2**bits - 1, levels(picture(4) * np.array([0.8, 0.8, 0.8, 0.4]), bits)
        light = 1 - inks / full
        expected = light[..., :3] * light[..., 3:] * 255
        write = tif(inks, photometric="separated", byteorder=order, compression=packing)
        yield Case("TIFF CMYK", f"{bits} bits, {order}, {packing}", write, expected, 1.6)
        planes = np.moveaxis(inks, -1, 0).copy()
        write = tif(
            planes, photometric="separated", planarconfig="separate", byteorder=order, compression=packing
        )
        yield Case("TIFF CMYK", f"{bits} bits, {order}, {packing}, planes apart", write, expected, 1.6)
    rgb = levels(picture(3), 8)
    for across, down, order in product((1, 2, 4), (1, 2, 4), "<>"):
        tags: dict[int, Any] = {258: [8] * 3, 262: 6, 277: 3, 530: [across, down]}
        write = content(raw.Tiff(SIZE, [raw.ycbcr_units(rgb, across, down)], tags, order).content())
        within = 3 if across * down == 1 else 40
        yield Case("TIFF YCbCr", f"{across} x {down}, {order}", write, rgb.astype(float), within)
    yield from _lab()
    yield from _palettes()


def _lab() -> Iterator[Case]:
    """CIELab, of which LittleCMS says how it looks."""
    lab = np.stack(
        [levels(picture(1)[..., 0], 8), *(levels(picture(3)[..., k], 8) // 6 + 108 for k in (1, 2))], -1
    )
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    signed = np.concatenate(
        [lab[..., :1], (lab[..., 1:].astype(int) - 128).astype(np.int8).view(np.uint8)], -1
    )
    seen = ImageCms.applyTransform(Image.frombytes("LAB", SIZE, signed.tobytes()), transform)
    assert seen is not None
    expected = np.asarray(seen).astype(float)
    for photometric, order, packing in product(("cielab", "icclab"), "<>", (None, "lzw")):
        values = signed if photometric == "cielab" else lab
        write = tif(values, photometric=photometric, byteorder=order, compression=packing)
        yield Case("TIFF CIELab", f"{photometric}, 8 bits, {order}, {packing}", write, expected, 3)
    deep = np.stack(
        [lab[..., 0].astype(np.uint16) * 257, *((lab[..., k].astype(np.int32) - 128) * 256 for k in (1, 2))],
        -1,
    )
    for order in "<>":
        write = tif(deep.astype(np.int16).view(np.uint16), photometric="cielab", byteorder=order)
        yield Case("TIFF CIELab", f"cielab, 16 bits, {order}", write, expected, 3)


def _palettes() -> Iterator[Case]:
    for bits, order, packing in product((1, 2, 4, 8), "<>", (None, "lzw")):
        colours = levels(np.random.default_rng(bits).random((2**bits, 3)), 16)
        indices = levels(picture(1)[..., 0], bits)
        expected = shown(colours[indices], 65535)
        if bits == 8:
            write = tif(
                indices, photometric="palette", colormap=colours.T, byteorder=order, compression=packing
            )
            yield Case("TIFF palette", f"{bits} bits, {order}, {packing}", write, expected, 1.01)
        if packing is None:
            tags: dict[int, Any] = {258: bits, 262: 3, 320: colours.T.ravel().tolist()}
            data = raw.packed_rows(indices.astype(np.uint16), bits)
            write = content(raw.Tiff(SIZE, [data], tags, order).content())
            yield Case("TIFF palette", f"{bits} bits, {order}, by hand", write, expected, 1.01)
            tags[320] = (colours >> 8).T.ravel().tolist()
            write = content(raw.Tiff(SIZE, [data], tags, order).content())
            yield Case(
                "TIFF palette",
                f"{bits} bits, {order}, colours of 8 bits",
                write,
                shown((colours >> 8)[indices], 255),
                1.01,
            )
    colours = levels(np.random.default_rng(9).random((65536, 3)), 16)
    indices = levels(picture(1)[..., 0], 16)
    for order in "<>":
        write = tif(indices, photometric="palette", colormap=colours.T, byteorder=order)
        yield Case("TIFF palette", f"16 bits, {order}", write, shown(colours[indices], 65535), 1.01)


def pictures_inside() -> Iterator[Case]:
    """Compressions that make a picture of each strip or tile."""
    for photometric, layout, order in product(("minisblack", "rgb"), STORED, "<>"):
        values, expected = stored(photometric, 8)
        for packing, options, within in (
            ("jpeg", {"compressionargs": {"level": 98}}, 6), ("webp", {}, 0.51), ("jpeg2000", {}, 1.01),
            ("jpegxl", {}, 0.51), ("lerc", {}, 0.51),
        ):  # fmt: skip
            if packing == "webp" and photometric == "minisblack":
                continue
            more = {"compressionargs": {"lossless": True}} if packing in ("webp", "jpegxl") else options
            more = {"compressionargs": {"level": 0, "reversible": True}} if packing == "jpeg2000" else more
            write = tif(
                values,
                photometric=photometric,
                compression=packing,
                byteorder=order,
                **STORED[layout],
                **more,
            )
            most = 40 if packing == "jpeg" and layout == "tiles" else within  # black beyond the edge
            yield Case(f"TIFF {packing}", f"{photometric}, 8 bits, {layout}, {order}", write, expected, most)
    for photometric, packing in product(("minisblack", "miniswhite", "rgb"), ("jpeg2000", "jpegxl", "lerc")):
        values, expected = stored(photometric, 16)
        more = {"compressionargs": {"lossless": True}} if packing == "jpegxl" else {}
        more = {"compressionargs": {"level": 0, "reversible": True}} if packing == "jpeg2000" else more
        write = tif(values, photometric=photometric, compression=packing, **more)
        yield Case(f"TIFF {packing}", f"{photometric}, 16 bits", write, expected)
    values, expected = stored("rgb", 8)
    planes = np.moveaxis(values, -1, 0).copy()
    for layout, how in STORED.items():
        write = tif(
            planes,
            photometric="rgb",
            planarconfig="separate",
            compression="jpeg",
            compressionargs={"level": 98},
            **how,
        )
        yield Case("TIFF jpeg", f"planes apart, {layout}", write, expected, 6)
        for subsampling in ((1, 1), (2, 1), (2, 2)):
            write = tif(
                values, photometric="rgb", compression="jpeg", subsampling=subsampling,
                compressionargs={"level": 98}, **how,
            )  # fmt: skip
            yield Case(
                "TIFF jpeg",
                f"YCbCr {subsampling}, {layout}",
                write,
                expected,
                40 if layout == "tiles" else 14,
            )
    inks = levels(picture(4) * np.array([0.8, 0.8, 0.8, 0.4]), 8)
    light = 1 - inks / 255
    write = tif(inks, photometric="separated", compression="jpeg", compressionargs={"level": 98})
    yield Case("TIFF jpeg", "CMYK", write, light[..., :3] * light[..., 3:] * 255, 8)
    deep = tif(levels(picture(1)[..., 0], 12), bitspersample=12, compression="jpeg")
    yield Case("TIFF jpeg", "12 bits", deep, reason="12-bit JPEG")
    for packing in ("tiff_ccitt", "group3", "group4"):
        bilevel = picture(1)[..., 0] > 0.5

        def write_fax(path: Any, packing: str = packing, bilevel: Array = bilevel) -> None:
            Image.fromarray(bilevel).save(path, compression=packing)

        yield Case("TIFF fax", packing, write_fax, shown(bilevel, 1))
    yield from _old_jpeg()


def _old_jpeg() -> Iterator[Case]:
    values, expected = stored("rgb", 8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG", quality=98, subsampling=0)
    data = buffer.getvalue()
    tags: dict[int, Any] = {258: [8] * 3, 259: 6, 262: 6, 277: 3, 512: 1, 513: 8, 514: len(data)}
    yield Case(
        "TIFF old-style JPEG", "one JPEG", content(raw.Tiff(SIZE, [data], tags).content()), expected, 6
    )


def not_read() -> Iterator[Case]:
    """Numbers whose white is not known, and what is no picture."""
    gray = picture(1)[..., 0]
    for kind, why in (
        ("float16", "16-bit floating-point"), ("float32", "32-bit floating-point"),
        ("float64", "64-bit floating-point"), ("uint32", "32-bit pixels"), ("uint64", "64-bit pixels"),
        ("int8", "8-bit signed"), ("int16", "16-bit signed"), ("int32", "32-bit signed"),
        ("complex64", "64-bit complex"),
    ):  # fmt: skip
        for order, packing in product("<>", (None, "deflate")):
            write = tif((gray * 100).astype(kind), byteorder=order, compression=packing)
            yield Case(
                "TIFF of numbers without a known white", f"{kind}, {order}, {packing}", write, reason=why
            )
    write = tif(gray.astype(np.float32), compression="deflate", predictor=3)
    yield Case("TIFF of numbers without a known white", "float32, predictor 3", write, reason="floating")
    values = levels(picture(1)[..., 0], 8)
    for photometric, why in ((4, "mask"), (32803, "sensor"), (34892, "linear raw"), (77, "photometric 77")):
        write = content(raw.Tiff(SIZE, [values.tobytes()], {262: photometric}).content())
        yield Case("TIFF of something else", f"photometric {photometric}", write, reason=why)
    for compression, why in ((34713, "Nikon"), (22610, "JPEG XR"), (12345, "number 12345")):
        write = content(raw.Tiff(SIZE, [values.tobytes()], {259: compression}).content())
        yield Case("TIFF of an unread compression", str(compression), write, reason=why)
    write = content(
        raw.Tiff(SIZE, [levels(picture(3), 8).tobytes()], {258: [5, 6, 5], 262: 2, 277: 3}).content()
    )
    yield Case("TIFF of something else", "5, 6 and 5 bits", write, reason="5, 6, 5 bits")
    write = content(raw.Tiff(SIZE, [values.tobytes()], {254: 1}).content())
    yield Case("TIFF of something else", "a preview first", write, reason="preview")


def pages() -> Iterator[Case]:
    """Several pages, pages inside of pages, pyramids."""
    first, expected = stored("rgb", 8)
    more = np.stack([first, first[::-1], first[:, ::-1]])
    yield Case("TIFF of several pages", "three", tif(more, photometric="rgb"), expected)
    deep, expected = stored("rgb", 16)
    yield Case(
        "TIFF of several pages",
        "three, 16 bits",
        tif(np.stack([deep, deep[::-1]]), photometric="rgb"),
        expected,
    )

    def pyramid(path: Any) -> None:
        import tifffile

        with tifffile.TiffWriter(path) as writer:
            writer.write(deep, photometric="rgb", subifds=1, metadata=None)
            writer.write(deep[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)

    yield Case("TIFF of several pages", "a smaller one inside", pyramid, expected)


PARTS = (
    plain, planar, extras, alpha_of_nothing, turned, few_bits, reversed_bits, other_colours, pictures_inside,
    not_read, pages,
)  # fmt: skip
