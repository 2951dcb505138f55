"""Pictures of scans: what is seen where, how large, and the key."""

import numpy as np
import pytest
import torch
from PIL import Image

from segmentation_scenes import FLOOR, room
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.scan_picture import DRAWN, HEIGHT, KEY_WIDTH, LINE, MARGIN, WIDTH, _shown, draw_scan

SCENE = room()
RED, BLUE = (200, 20, 20), (20, 20, 200)


@pytest.fixture
def pixels(tmp_path):
    """The picture of a room whose floor is red and all else blue, with a ring around the middle of the floor."""
    colors = np.where(SCENE.semantic20[:, None] == FLOOR, RED, BLUE).astype(np.uint8)
    middle = int(np.abs(SCENE.coord - [1.6, 1.5, 0]).sum(1).argmin())
    draw_scan(tmp_path / "a.png", points_of_scene(SCENE), colors, [("floor", RED), ("else", BLUE)], "what", middle)
    with Image.open(tmp_path / "a.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_scan_fills_the_picture_beside_the_key(pixels):
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    drawn = (pixels[:, : WIDTH - KEY_WIDTH] < 250).any(2)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    spare = np.array([rows[0], HEIGHT - 1 - rows[-1], columns[0], WIDTH - KEY_WIDTH - 1 - columns[-1]])
    assert spare.min() > 0  # nothing is cut off
    assert spare[:2].max() < 1.5 * MARGIN or spare[2:].max() < 1.5 * MARGIN
    assert abs(spare[0] - spare[1]) < MARGIN
    assert abs(spare[2] - spare[3]) < MARGIN


def test_colours_are_those_of_the_points_and_of_the_key(pixels):
    red = pixels[..., 0] > pixels[..., 2] + 60
    blue = pixels[..., 2] > pixels[..., 0] + 60
    assert red[:, : WIDTH - KEY_WIDTH].sum() > 20_000
    assert blue[:, : WIDTH - KEY_WIDTH].sum() > 20_000
    left = WIDTH - KEY_WIDTH + LINE // 2
    assert pixels[MARGIN + LINE + LINE // 2, left].tolist() == list(RED)
    assert pixels[MARGIN + 2 * LINE + LINE // 2, left].tolist() == list(BLUE)
    holes = (pixels[:, : WIDTH - KEY_WIDTH] > 250).all(2)[red.any(1)][:, red[:, : WIDTH - KEY_WIDTH].any(0)]
    assert holes.mean() < 0.6


def test_the_ring_is_where_the_point_is(pixels, tmp_path):
    colors = np.full((len(SCENE), 3), 128, np.uint8)
    draw_scan(tmp_path / "plain.png", points_of_scene(SCENE), colors, [("a", RED)])
    draw_scan(tmp_path / "ring.png", points_of_scene(SCENE), colors, [("a", RED)], mark=0)
    plain, ring = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("plain", "ring"))
    changed = np.argwhere((plain != ring).any(2))
    assert 50 < len(changed) < 500
    assert np.ptp(changed, axis=0).tolist() == [20, 20]
    colors[0] = (255, 0, 0)
    colors[np.abs(SCENE.coord - SCENE.coord[0]).max(1) < 0.1] = (255, 0, 0)
    draw_scan(tmp_path / "red.png", points_of_scene(SCENE), colors, [("a", BLUE)])
    red = np.asarray(Image.open(tmp_path / "red.png")).astype(int)
    there = np.argwhere(red[..., 0] > red[..., 1] + 60)
    assert np.linalg.norm(there.mean(0) - changed.mean(0)) < 25


def test_large_scans_are_thinned_evenly_and_ceilings_left_out():
    coord = torch.rand(400_000, 3, generator=torch.Generator().manual_seed(0)).numpy() * np.float32([20, 20, 2.5])
    shown = _shown(coord)
    assert 0.4 * DRAWN < len(shown) <= DRAWN
    assert coord[shown, 2].max() <= 0.81 * 2.5
    counts = np.histogramdd(coord[shown], bins=(4, 4, 2))[0]
    assert counts.min() > 0.6 * counts.max()
    assert _shown(coord[:1]).tolist() == [0]
