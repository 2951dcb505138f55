import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians, matrix_to_quaternion, quaternion_multiply, quaternion_to_matrix
from splatsense.spherical_harmonics import sh_to_rgb

quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.01)
vectors = st.tuples(*[st.floats(-10, 10)] * 3)


def make(count=8, degree=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=random),
        quats=normalize(torch.randn(count, 4, generator=random), dim=1),
        scales=torch.rand(count, 3, generator=random) + 0.01,
        opacities=torch.rand(count, generator=random),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=random),
    )


def covariances(gaussians):
    axes = quaternion_to_matrix(gaussians.quats) * gaussians.scales[:, None, :]
    return axes @ axes.transpose(1, 2)


@given(quat=quaternions, scale=st.floats(0.01, 100), translation=vectors)
def test_a_transform_moves_everything(quat, scale, translation):
    gaussians = make()
    rotation, translation = quaternion_to_matrix(torch.tensor(quat)), torch.tensor(translation)
    moved = gaussians.transform(rotation, scale, translation)
    torch.testing.assert_close(moved.means, scale * gaussians.means @ rotation.T + translation, rtol=1e-4, atol=1e-4)
    expected = scale**2 * rotation @ covariances(gaussians) @ rotation.T
    torch.testing.assert_close(covariances(moved), expected, rtol=1e-4, atol=1e-4 * scale**2)
    # Its colour seen along a direction that turned with it stays.
    directions = normalize(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.testing.assert_close(
        sh_to_rgb(moved.sh, directions @ rotation.T), sh_to_rgb(gaussians.sh, directions), rtol=0, atol=2e-5
    )
    assert torch.equal(moved.opacities, gaussians.opacities)


@given(first=quaternions, second=quaternions)
def test_two_transforms_are_one(first, second):
    gaussians = make()
    a, b = quaternion_to_matrix(torch.tensor(first)), quaternion_to_matrix(torch.tensor(second))
    twice, once = gaussians.transform(a, 2.0).transform(b, 3.0), gaussians.transform(b @ a, 6.0)
    for name in ("means", "scales", "sh"):
        torch.testing.assert_close(getattr(twice, name), getattr(once, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariances(twice), covariances(once), rtol=1e-4, atol=1e-3)


def test_gradients_flow_through_a_transform():
    gaussians = make(2, degree=1)
    means = gaussians.means.clone().requires_grad_()
    dataclasses.replace(gaussians, means=means).transform(
        quaternion_to_matrix(torch.tensor([1.0, 2, 3, 4])), 2.0
    ).means.sum().backward()
    assert means.grad is not None
    assert float(means.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    "matrix", [2 * torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.ones(3, 3), torch.eye(4)]
)
def test_only_proper_rotations_are_taken(matrix):
    with pytest.raises(DataError, match="not a proper rotation matrix"):
        make().transform(matrix)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_only_positive_scales_are_taken(scale):
    with pytest.raises(DataError, match="scale must be positive"):
        make().transform(scale=scale)


@pytest.mark.parametrize("translation", [torch.zeros(2), torch.zeros(8, 3), torch.tensor([0.0, math.nan, 0.0])])
def test_only_translations_of_three_numbers_are_taken(translation):
    with pytest.raises(DataError, match="translation must be three finite numbers"):
        make().transform(translation=translation)


@given(quat=quaternions)
def test_quaternions_and_matrices(quat):
    unit = normalize(torch.tensor(quat, dtype=torch.float64), dim=0)
    matrix = quaternion_to_matrix(torch.tensor(quat, dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    back = matrix_to_quaternion(matrix)
    assert float(back[0]) >= 0
    torch.testing.assert_close((back * unit).sum().abs(), torch.tensor(1.0, dtype=torch.float64))


def test_quaternions_of_half_turns_survive():
    halves = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0, 0.8]])
    back = matrix_to_quaternion(quaternion_to_matrix(halves))
    torch.testing.assert_close((back * halves).sum(1).abs(), torch.ones(4))


def test_a_quaternion_turns_the_right_way():
    quarter_about_z = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    turned = quaternion_to_matrix(quarter_about_z) @ torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(turned, torch.tensor([0.0, 1, 0]), rtol=0, atol=1e-6)


@given(first=quaternions, second=quaternions)
def test_the_product_is_the_product_of_the_matrices(first, second):
    left, right = (normalize(torch.tensor(quat, dtype=torch.float64), dim=0) for quat in (first, second))
    product = quaternion_to_matrix(quaternion_multiply(left, right))
    torch.testing.assert_close(product, quaternion_to_matrix(left) @ quaternion_to_matrix(right))


@given(quat=quaternions, scale=st.floats(0.01, 100), translation=vectors)
def test_normalized_is_centred_with_half_extent_one(quat, scale, translation):
    moved = make().transform(quaternion_to_matrix(torch.tensor(quat)), scale, torch.tensor(translation))
    normal = moved.normalized()
    low, high = normal.bounds
    # Rounding of the means before, seen after the division by their extent, is all that may remain.
    slack = 1e-5 * (1 + float(moved.means.abs().max()) / scale)
    torch.testing.assert_close((low + high) / 2, torch.zeros(3), rtol=0, atol=slack)
    torch.testing.assert_close((high - low).max() / 2, torch.tensor(1.0), rtol=0, atol=slack)
    torch.testing.assert_close(normal.scales / normal.scales[0, 0], moved.scales / moved.scales[0, 0])


def test_normalized_ignores_outliers_when_asked():
    gaussians = make(1000)
    gaussians.means[0] = 1e4
    low, high = gaussians.normalized(outlier_fraction=0.01).bounds
    assert float(high.max()) > 100
    assert float((gaussians.normalized().means[1:].abs()).max()) > 0.9  # all the others huddle in one corner
    assert float(low.min()) > -3


def test_normalized_of_one_gaussian():
    one = make(1).normalized()
    assert one.means.tolist() == [[0, 0, 0]]
    assert torch.equal(one.scales, make(1).scales)


def test_bounds_of_nothing():
    with pytest.raises(DataError, match="no bounds"):
        _ = make()[:0].bounds


def test_selecting():
    gaussians = make()
    assert torch.equal(gaussians[2:4].sh, gaussians.sh[2:4])
    assert torch.equal(gaussians[torch.tensor([3, 1])].means, gaussians.means[[3, 1]])
    assert torch.equal(gaussians[gaussians.opacities > 0.5].opacities, gaussians.opacities[gaussians.opacities > 0.5])


def test_subsample_keeps_the_order_and_depends_on_the_seed_alone():
    gaussians = dataclasses.replace(make(100), opacities=torch.linspace(0, 1, 100))
    part = gaussians.subsample(40, seed=3)
    assert len(part) == 40
    assert bool((part.opacities.diff() > 0).all())
    assert torch.equal(part.means, gaussians.subsample(40, seed=3).means)
    assert not torch.equal(part.means, gaussians.subsample(40, seed=4).means)
    assert gaussians.subsample(100) is gaussians
    assert len(gaussians.subsample(0)) == 0
    with pytest.raises(DataError, match="count must be at least 0, got -1"):
        gaussians.subsample(-1)


def test_cat_pads_missing_bands_with_zeros():
    low, high = make(3, degree=0), make(5, degree=2)
    both = Gaussians.cat([low, high])
    assert len(both) == 8
    assert both.sh_degree == 2
    assert torch.equal(both.sh[:3, :1], low.sh)
    assert float(both.sh[:3, 1:].abs().max()) == 0
    assert torch.equal(both[3:].sh, high.sh)
    assert torch.equal(both.means, torch.cat([low.means, high.means]))


def test_cat_of_nothing():
    with pytest.raises(DataError, match="at least one"):
        Gaussians.cat([])


def test_colours():
    rgb = torch.tensor([[0.0, 0.25, 1.0]])
    gaussians = Gaussians.from_rgb(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), rgb)
    torch.testing.assert_close(gaussians.rgb, rgb)
    torch.testing.assert_close(sh_to_rgb(gaussians.sh, torch.ones(1, 3)), rgb)
    assert gaussians.sh_degree == 0
    assert repr(gaussians) == "Gaussians(n=1, sh_degree=0, device=cpu)"
    assert torch.equal(gaussians.to("cpu").sh, gaussians.sh)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("means", (8, 2)), ("means", (7, 3)), ("quats", (8, 3)), ("scales", (8,)), ("opacities", (8, 1)),
        ("sh", (8, 5, 3)), ("sh", (8, 4)), ("sh", (7, 4, 3)), ("sh", (8, 36, 3)), ("sh", (8, 0, 3)),
    ],
)  # fmt: skip
def test_wrong_shapes(name, shape):
    with pytest.raises(DataError, match=r"Gaussians\.\w+ has shape"):
        dataclasses.replace(make(), **{name: torch.zeros(shape)})


def test_crop_keeps_what_lies_in_the_box():
    gaussians = make(200)
    low, high = (-0.5, -1.0, -math.inf), (0.5, 1.0, 0.25)
    cropped = gaussians.crop(low, torch.tensor(high))
    inside = [all(a <= v <= b for a, v, b in zip(low, mean, high, strict=True)) for mean in gaussians.means.tolist()]
    assert 0 < len(cropped) == sum(inside) < 200
    for field in dataclasses.fields(Gaussians):
        assert torch.equal(getattr(cropped, field.name), getattr(gaussians, field.name)[torch.tensor(inside)])
    corners = gaussians.bounds
    assert len(gaussians.crop(corners[0], corners[1])) == 200  # the faces of the box belong to it
    assert len(gaussians.crop((9, 9, 9), (9, 9, 9))) == 0


@pytest.mark.parametrize(("low", "high"), [((0, 0), (1, 1)), ((0, 0, 1), (1, 1, 0)), ((0, 0, math.nan), (1, 1, 1))])
def test_crop_to_no_box(low, high):
    with pytest.raises(DataError, match=r"Gaussians\.crop: low"):
        make().crop(low, high)


def test_the_frame_is_that_of_normalized():
    gaussians = make(100)
    center, scale = gaussians.frame(0.05)
    torch.testing.assert_close(gaussians.normalized(0.05).means, (gaussians.means - center) * scale)
