"""Colours that are stored as something else than red, green and blue."""

from __future__ import annotations

import numpy as np

from ..types import Array, FloatArray

_SRGB_FROM_XYZ_D50 = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ],
    np.float32,
)
"""Linear sRGB of XYZ relative to D50, adapted by Bradford's method (B. Lindbloom, RGB/XYZ matrices)."""

_WHITE = np.array([0.96422, 1.0, 0.82521], np.float32)
"""XYZ of D50, the white of CIELab in TIFF as libtiff and Photoshop take it."""


def rgb_of_cmyk(inks: Array, full: int) -> Array:
    """Return red, green and blue (...,3) on the scale of the inks (...,4), of which ``full`` is most."""
    left = full - inks.astype(np.float32)
    return np.asarray(np.round(left[..., :3] * (left[..., 3:] / np.float32(full))).astype(inks.dtype))


def rgb_of_ycbcr(stored: Array, coefficients: FloatArray, reference: FloatArray) -> Array:
    """Return 8-bit red, green and blue (...,3) of YCbCr (TIFF 6.0, section 21).

    Parameters
    ----------
    stored : (...,3) uint8.
    coefficients : (3,) shares of red, green and blue in Y.
    reference : (6,) stored values of black and white of Y, Cb and Cr.
    """
    red, green, blue = coefficients.astype(np.float32)
    black, white = reference[::2].astype(np.float32), reference[1::2].astype(np.float32)
    y, cb, cr = np.moveaxis(
        (stored - black) * (np.array([255, 127, 127], np.float32) / (white - black)), -1, 0
    )
    r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
    g = (y - blue * b - red * r) / green
    return np.asarray(np.clip(np.round(np.stack([r, g, b], -1)), 0, 255).astype(np.uint8))


def rgb_of_lab(lightness: FloatArray, a: FloatArray, b: FloatArray) -> Array:
    """Return 8-bit sRGB (...,3) of CIELab: L* from 0 to 100, a* and b* around 0."""
    y = (lightness + 16) / 116
    relative = np.stack([y + a / 500, y, y - b / 200], -1).astype(np.float32)
    linear = np.where(relative > 6 / 29, relative**3, (relative - 4 / 29) * np.float32(3 * (6 / 29) ** 2))
    light = np.clip((linear * _WHITE) @ _SRGB_FROM_XYZ_D50.T, 0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(shown * 255).astype(np.uint8))
