import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from splatsense.color_distance import colors_apart, srgb_to_lab

WHITE = np.full((1, 3), 255, np.uint8)


@given(st.integers(0, 255))
def test_greys_have_no_chroma(level):
    lab = srgb_to_lab(np.full(3, level / 255))
    assert np.abs(lab[1:]).max() < 0.02


def test_lab_of_primaries():
    """Values of CIE 15 for the sRGB primaries under D65."""
    found = srgb_to_lab(np.eye(3))
    assert np.allclose(found, [[53.24, 80.09, 67.20], [87.74, -86.18, 83.18], [32.30, 79.19, -107.86]], atol=0.02)


def test_colours_are_well_apart_from_each_other_and_from_those_that_are_taken():
    lab = srgb_to_lab(np.concatenate([WHITE, colors_apart(20, WHITE)]) / 255)
    distance = np.linalg.norm(lab[:, None] - lab, axis=2)[~np.eye(len(lab), dtype=bool)]
    assert distance.min() > 30  # a difference of 2 can just be seen


def test_more_colours_begin_with_the_same_ones():
    assert colors_apart(3, WHITE).tolist() == colors_apart(9, WHITE)[:3].tolist()
