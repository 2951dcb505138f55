"""How far colours are apart to the eye (CIELAB), and colours that are well apart."""

import numpy as np
from jaxtyping import UInt8

LEVELS = np.arange(40, 231, 10)  # of each channel of the colours that are chosen from: no glaring ones


def srgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) CIELAB (D65) of sRGB (..., 3) in [0, 1]: IEC 61966-2-1, then CIE 15."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [[0.4124564, 0.2126729, 0.0193339], [0.3575761, 0.7151522, 0.1191920], [0.1804375, 0.0721750, 0.9503041]]
    )
    ratio = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def colors_apart(count: int, taken: UInt8[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "{count} 3"]:
    """Colours of which each is as far as possible from all before it and from those that are taken, in CIELAB.

    Args:
        count: how many; more of them begin with the same ones.
        taken: sRGB, at least one.
    """
    choices = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    lab = srgb_to_lab(choices / 255)
    away = np.full(len(lab), np.inf)
    for color in srgb_to_lab(taken / 255):
        away = np.minimum(away, np.linalg.norm(lab - color, axis=1))
    found = np.empty((count, 3), np.uint8)
    for row in range(count):
        best = int(away.argmax())
        found[row] = choices[best]
        away = np.minimum(away, np.linalg.norm(lab - lab[best], axis=1))
    return found
