import numpy as np
import pytest
import torch

from splatsense.errors import DataError
from splatsense.gaussians import quaternion_to_matrix
from splatsense.io import PointCloud, point_cloud_to_gaussians


def grid(spacing=0.25):
    x, y = np.meshgrid(np.arange(6), np.arange(6))
    return (np.stack([x, y, 0 * x], -1).reshape(-1, 3) * spacing).astype(np.float32)


def test_sizes_follow_the_spacing():
    gaussians = point_cloud_to_gaussians(PointCloud(grid()), neighbors=2, size=0.5)
    torch.testing.assert_close(gaussians.scales, torch.full((36, 3), 0.125))
    torch.testing.assert_close(gaussians.opacities, torch.full((36,), 0.99))
    torch.testing.assert_close(gaussians.rgb, torch.full((36, 3), 0.5))
    torch.testing.assert_close(gaussians.means, torch.from_numpy(grid()))


def test_spacing_matches_a_search_over_all_pairs():
    points = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points, axis=-1)
    mean = np.sort(distances, axis=1)[:, 1:5].mean(1)
    gaussians = point_cloud_to_gaussians(PointCloud(points), neighbors=4, size=2.0)
    np.testing.assert_allclose(gaussians.scales[:, 0], 2 * np.minimum(mean, 10 * np.median(mean)), rtol=1e-6)


def test_colours_are_kept():
    colors = np.random.default_rng(0).random((36, 3)).astype(np.float32)
    torch.testing.assert_close(point_cloud_to_gaussians(PointCloud(grid(), colors)).rgb, torch.from_numpy(colors))


def test_coincident_points_get_the_size_of_their_neighbourhood():
    points = np.concatenate([grid(), grid()[:1], grid()[:1], grid()[:1], grid()[:1]])
    scales = point_cloud_to_gaussians(PointCloud(points)).scales
    assert float(scales.min()) > 0.1
    assert float(scales.max()) < 0.2


@pytest.mark.parametrize("count", [1, 5])
def test_a_single_place(count):
    gaussians = point_cloud_to_gaussians(PointCloud(np.ones((count, 3), np.float32)))
    assert len(gaussians) == count
    assert gaussians.scales.unique().tolist() == pytest.approx([0.01])


def test_two_points():
    gaussians = point_cloud_to_gaussians(PointCloud(np.array([[0, 0, 0], [0, 0, 4]], np.float32)), size=0.5)
    torch.testing.assert_close(gaussians.scales, torch.full((2, 3), 2.0))


def test_a_stray_point_does_not_become_a_giant():
    points = np.concatenate([grid(), [[1e6, 0, 0]]]).astype(np.float32)
    assert float(point_cloud_to_gaussians(PointCloud(points)).scales.max()) < 2


def test_normals_make_discs_that_face_them():
    normals = np.random.default_rng(0).normal(size=(36, 3)).astype(np.float32)
    normals[:6] = [[0, 0, 1], [0, 0, -1], [0, 0, -2], [1, 0, 0], [0, 0, 0], [np.nan, 0, 0]]
    gaussians = point_cloud_to_gaussians(PointCloud(grid(), normals=normals))
    axes = quaternion_to_matrix(gaussians.quats)[:, :, 2]
    usable = [*range(4), *range(6, 36)]
    expected = torch.nn.functional.normalize(torch.from_numpy(normals[usable]), dim=1)
    torch.testing.assert_close(axes[usable], expected, rtol=0, atol=2e-3)  # normals within 0.1 degrees of -z become -z
    flatness = gaussians.scales[:, 2] / gaussians.scales[:, 0]
    torch.testing.assert_close(flatness[usable], torch.full((34,), 0.1))
    assert flatness[4:6].tolist() == [1, 1]  # no usable normal: a ball


@pytest.mark.parametrize("settings", [{"neighbors": 0}, {"size": 0.0}, {"opacity": 1.5}, {"size": float("nan")}])
def test_settings_out_of_range(settings):
    with pytest.raises(DataError, match="point_cloud_to_gaussians: need"):
        point_cloud_to_gaussians(PointCloud(grid()), **settings)


def test_a_cloud_checks_its_arrays():
    with pytest.raises(DataError, match=r"PointCloud\.colors has shape \(2, 3\), expected \(36, 3\)"):
        PointCloud(grid(), colors=np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="at least one point"):
        PointCloud(np.zeros((0, 3), np.float32))
    with pytest.raises(DataError, match="only finite values"):
        PointCloud(np.full((1, 3), np.nan, np.float32))
