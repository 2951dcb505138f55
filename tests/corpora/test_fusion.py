"""Fusion of rendered depth of known surfaces: points lie on them, colours and ids are theirs, normals point to the cameras."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from splatsense.cameras import Cameras
from splatsense.corpora.fusion import _VoxelSums, fuse_depth, unproject, usable_depth
from splatsense.errors import DataError
from splatsense.geometry.normals import estimate_normals
from splatsense.geometry.voxels import voxel_groups, voxel_keys
from splatsense.mesh import Material, Mesh
from splatsense.render.mesh import render_mesh

ROOM = np.array([3.0, 2.0, 2.5])
CORNER = np.array([-0.013, 0.017, 0.021])  # walls within voxels, not on their sides


def box(size=ROOM) -> Mesh:
    """A closed box; face pairs 0 to 5 are x=0, x=1, y=0, y=1, z=0, z=1 and instances of their own."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * size + CORNER
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([[(a, b, c), (a, c, d)] for a, b, c, d in quads]).reshape(-1, 3)
    sides = np.repeat(np.arange(6), 2).astype(np.int32)
    materials = tuple(Material(np.array([0.2 + 0.1 * i, 0.5, 0.9 - 0.1 * i, 1], np.float32)) for i in range(6))
    return Mesh(corners.astype(np.float32), faces.astype(np.int32), sides, sides, materials)


@dataclass
class InMemory:
    cameras: Cameras
    color: np.ndarray
    depth: np.ndarray

    def frame(self, index):
        return self.color[index], self.depth[index]


def room_frames(views=8, width=96, height=72):
    angles = torch.arange(views) * (2 * math.pi / views)
    eyes = torch.tensor([1.5, 1.0, 1.3]) + 0.3 * torch.stack([angles.cos(), angles.sin(), 0 * angles], 1)
    targets = eyes + torch.stack([angles.cos(), angles.sin(), 0.6 * torch.sin(3 * angles)], 1)
    cameras = Cameras.look_at(eyes, targets, torch.tensor([0.0, 0.0, 1.0]), width, height, 70)
    images = render_mesh(box(), cameras)
    return InMemory(cameras, images.color.numpy(), images.depth.numpy()), images


@pytest.fixture(scope="module")
def fused():
    frames, images = room_frames()
    return fuse_depth(frames, 0.05, ids=lambda index: images.instance_id[index].numpy())


def side_of(points):
    points = points - CORNER
    distances = np.stack([points[:, 0], ROOM[0] - points[:, 0], points[:, 1], ROOM[1] - points[:, 1],
                          points[:, 2], ROOM[2] - points[:, 2]], axis=1)  # fmt: skip
    return np.abs(distances).argmin(1), np.sort(np.abs(distances), axis=1)


def test_points_lie_on_the_walls_with_their_colours_ids_and_inward_normals(fused):
    side, distances = side_of(fused.coord)
    assert len(fused.coord) > 3000
    assert distances[:, 0].max() < 0.05
    assert np.median(distances[:, 0]) < 1e-3
    inside = distances[:, 1] > 0.12  # away from edges, where one voxel holds two walls
    assert (fused.ids[inside] == side[inside]).all()
    expected = np.array([[0.2 + 0.1 * i, 0.5, 0.9 - 0.1 * i] for i in range(6)])[side] * 255
    assert np.abs(fused.color[inside] - expected[inside]).max() < 1.5
    inward = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])[side]
    aligned = np.einsum("nc,nc->n", fused.normal, inward)
    assert (aligned[distances[:, 1] > 0.3] > 0.999).all()
    assert (aligned > 0).mean() > 0.99


def test_every_voxel_has_one_point_and_pixels_are_counted(fused):
    frames, _ = room_frames()
    assert len(np.unique(voxel_keys(fused.coord, 0.05))) >= 0.99 * len(fused.coord)  # a mean may round over the voxel's side
    used = sum(int(usable_depth(depth).sum()) for depth in frames.depth)
    assert fused.pixels.sum() == used
    thinned = fuse_depth(frames, 0.05, least=5)
    assert thinned.pixels.min() == 5
    assert len(thinned.coord) == (fused.pixels >= 5).sum()


def test_one_pixel_is_unprojected_as_the_camera_model_says():
    cameras = Cameras.look_at(torch.tensor([[1.0, 2, 3]]), torch.tensor([4.0, -1, 2]), torch.tensor([0.0, 0, 1]), 8, 6, 50)
    depth = np.zeros((6, 8), np.float32)
    depth[4, 7] = 2.5
    point = unproject(depth, cameras.K[0].double().numpy(), cameras.world_to_camera[0].double().numpy())[4, 7]
    in_camera = cameras.world_to_camera[0].double() @ torch.tensor([*point, 1.0], dtype=torch.float64)
    pixel = cameras.K[0].double() @ in_camera[:3]
    assert pixel[2] == pytest.approx(2.5)
    assert (pixel[:2] / pixel[2]).tolist() == pytest.approx([7.5, 4.5])


def test_flying_pixels_are_left_out():
    depth = np.full((5, 6), 2.0, np.float32)
    depth[:, 3:] = 3.0
    depth[0, 0] = 0
    depth[2, 5] = 20
    used = usable_depth(depth)
    assert not used[:, 2:4].any()
    assert not used[0, 0]
    assert used[1:, :2].all()
    assert not used[2, 4:].any()
    assert usable_depth(depth, jump=math.inf)[:, 2:4].all()


def test_merging_early_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [(rng.integers(0, 50, 200), rng.random((200, 2))) for _ in range(6)]
    at_once = _VoxelSums(2)
    for part in parts:
        at_once.add(*part)
    monkeypatch.setattr("splatsense.corpora.fusion.PENDING_ROWS", 10)
    early = _VoxelSums(2)
    for part in parts:
        early.add(*part)
    for one, other in zip(at_once.result(), early.result(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    keys = np.concatenate([keys for keys, _ in parts])
    values = np.concatenate([values for _, values in parts])
    expected = np.stack([values[keys == key].sum(0) for key in np.unique(keys)])
    np.testing.assert_allclose(early.result()[1], expected, rtol=1e-12)


def test_depth_that_is_all_invalid_says_so():
    frames, _ = room_frames(2)
    frames.depth[:] = 0
    with pytest.raises(DataError, match="none of 2 frames has usable depth"):
        fuse_depth(frames)
    with pytest.raises(DataError, match="voxel"):
        fuse_depth(frames, 0)


def test_normals_of_a_dense_noisy_sphere_point_outwards():
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(60_000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = (direction * (1 + 0.002 * rng.normal(size=(60_000, 1)))).astype(np.float32)
    normals = estimate_normals(points, points * 2.0, voxel=0.05)
    assert np.median(np.einsum("nc,nc->n", normals, direction)) > 0.99
    assert (np.einsum("nc,nc->n", normals, direction) > 0.9).mean() > 0.999
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_normals_of_too_few_points_are_unknown(count):
    assert not estimate_normals(np.eye(3, dtype=np.float32)[:count], np.zeros(3)).any()


def test_three_points_have_the_normal_of_their_plane():
    normals = estimate_normals(np.eye(3, dtype=np.float32), np.full(3, 9.0))
    np.testing.assert_allclose(normals, np.full((3, 3), 3**-0.5), atol=1e-6)


def test_voxels_far_out_or_not_finite_are_told():
    for bad in (1e9, np.nan):
        with pytest.raises(DataError, match="voxel_keys"):
            voxel_keys(np.array([[0, bad, 0]]), 0.02)
    group, count = voxel_groups(np.array([[0.5, 0, 0], [-0.5, 0, 0], [0.9, 0.1, 0]]), 1.0)
    assert group.tolist() == [1, 0, 1]
    assert count == 2
