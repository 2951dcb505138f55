"""The colours of an object in words: the basic colour terms of Berlin and Kay (1969) nearest to what its pictures show.

A pixel gets the term of the nearest of some anchors in CIELAB (D65). Terms that cover enough of the visible pixels name the
object: one that covers most of it, or two that share it.
"""

import numpy as np

from splatsense.color_distance import srgb_to_lab

ANCHORS = {
    "black": ("#000000", "#202020"), "grey": ("#484848", "#808080", "#b0b0b0"), "white": ("#e4e4e4", "#ffffff"),
    "red": ("#ff0000", "#b01818", "#e04040", "#782020"), "orange": ("#ff8c00", "#f0a050", "#c86018"),
    "yellow": ("#ffff00", "#e0c030"),
    "green": ("#00a000", "#006020", "#80d060", "#708040"),
    "blue": ("#0000ff", "#2030c0", "#102870", "#3080d0", "#90c0f0", "#20a0b0"),
    "purple": ("#800080", "#6030a0", "#a070d0"), "pink": ("#ff80c0", "#ffc0cb", "#e04090"),
    "brown": ("#603010", "#8b5a2b", "#402818", "#a87850"), "beige": ("#e0d0b0", "#c8b090"),
}  # fmt: skip
VISIBLE = 128  # alpha of a pixel that shows the object
ONE, TWO = 0.6, 0.25  # shares of one colour that names an object alone, and of each of two that do together


def dominant_colors(views: np.ndarray) -> tuple[str, ...]:
    """The one or two colour terms that name what pictures show, most visible first; () where there are many or none.

    Args:
        views: (V, H, W, 4) uint8 sRGB with straight alpha.
    """
    pixels = views.reshape(-1, 4)
    pixels = pixels[pixels[:, 3] >= VISIBLE, :3]
    if not len(pixels):
        return ()
    red, green, blue = (pixels >> 2).astype(np.int32).T  # 64 levels a channel: far fewer colours to name
    levels, counts = np.unique(red << 12 | green << 6 | blue, return_counts=True)
    lab = srgb_to_lab((np.stack([levels >> 12, levels >> 6 & 63, levels & 63], axis=-1) * 4 + 1.5) / 255)
    nearest = np.linalg.norm(lab[:, None] - _ANCHOR_LAB, axis=2).argmin(1)
    shares = np.bincount(_ANCHOR_TERMS[nearest], counts, len(ANCHORS)) / counts.sum()
    first, second = np.argsort(-shares, kind="stable")[:2]
    terms = list(ANCHORS)
    if shares[first] >= ONE:
        return (terms[first],)
    return (terms[first], terms[second]) if shares[second] >= TWO else ()


_HEX = [(term, anchor) for term, anchors in enumerate(ANCHORS.values()) for anchor in anchors]
_ANCHOR_TERMS = np.array([term for term, _ in _HEX])
_ANCHOR_LAB = srgb_to_lab(np.array([list(bytes.fromhex(anchor[1:])) for _, anchor in _HEX]) / 255)
