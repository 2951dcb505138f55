"""The native rasteriser against the dense oracle, in every build that this CPU can run."""

import dataclasses
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from render.scenes import assert_matches_oracle, random_scene, with_camera_gradients, with_gradients
from splatsense.cameras import Cameras
from splatsense.errors import LimitError
from splatsense.gaussians import Gaussians
from splatsense.native import load_native
from splatsense.render import native, render

pytestmark = pytest.mark.skipif(load_native() is None, reason="the native library is not built (make native)")
draw = partial(render, backend="native")


@pytest.mark.parametrize(
    ("n", "features", "views", "width", "height", "degree"),
    [(150, 0, 1, 64, 48, 0), (90, 3, 3, 37, 21, 1), (60, 16, 2, 19, 50, 2), (40, 32, 1, 33, 31, 3), (40, 77, 2, 17, 18, 0)],
)
@pytest.mark.usefixtures("level")
def test_matches_the_dense_oracle(n, features, views, width, height, degree):
    gaussians, feature, cameras = random_scene(n, features, views, width, height, degree, seed=n)
    assert_matches_oracle(gaussians, feature, cameras, draw, torch.float32)


@given(
    n=st.integers(1, 40),
    features=st.integers(0, 36),
    views=st.integers(1, 2),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    degree=st.integers(0, 3),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_matches_the_dense_oracle_for_any_shape(n, features, views, width, height, degree, seed):
    gaussians, feature, cameras = random_scene(n, features, views, width, height, degree, seed)
    assert_matches_oracle(gaussians, feature, cameras, draw, torch.float32)


@pytest.mark.usefixtures("level")
def test_needles_keep_their_precision():
    """Gaussians a thousand times longer than wide, at 45 degrees: where the textbook determinant cancels."""
    gaussians, feature, cameras = random_scene(30, 0, 1, 60, 60, seed=5)
    scales = torch.tensor([2.0, 0.002, 0.002], dtype=torch.float64).expand(30, 3)
    needles = dataclasses.replace(gaussians, scales=scales)
    assert_matches_oracle(needles, feature, cameras, draw, torch.float32, gradient_tolerance=1e-3)


def everything(gaussians: Gaussians, features: torch.Tensor, cameras: Cameras) -> list[torch.Tensor]:
    """Images and all gradients."""
    copy, leaves = with_gradients(gaussians, features, torch.float32)
    cameras, camera_leaves = with_camera_gradients(cameras, torch.float32)
    result = draw(copy, cameras, features=leaves["features"])
    images = [result.color, result.features, result.depth, result.alpha]
    weights = [torch.randn(image.shape, generator=torch.Generator().manual_seed(2)) for image in images]
    torch.autograd.backward(images, weights)
    return [image.detach() for image in images] + [leaf.grad for leaf in (leaves | camera_leaves).values()]


@pytest.fixture(scope="module")
def large_scene():
    """Enough work that two threads share it."""
    return random_scene(6000, 5, 2, 150, 130, degree=1, seed=7)


@pytest.mark.usefixtures("level")
def test_same_bits_for_any_number_of_threads(large_scene):
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            runs.append(everything(*large_scene))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.usefixtures("level")
def test_little_scratch_memory_changes_only_rounding(large_scene, monkeypatch):
    whole = everything(*large_scene)
    monkeypatch.setattr(native, "GRADIENT_BYTES", 1)  # one row of tiles at a time
    parts = everything(*large_scene)
    assert not all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm()


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n", [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33])
def test_any_count_of_gaussians(n):
    gaussians, feature, cameras = random_scene(n, 1, 1, 20, 20, seed=n)
    assert_matches_oracle(gaussians, feature, cameras, draw, torch.float32)


def with_every_fourth(gaussians: Gaussians, name: str, value: float) -> Gaussians:
    tensor = getattr(gaussians, name).clone()
    tensor[::4] = value
    return dataclasses.replace(gaussians, **{name: tensor})


NOT_DRAWABLE = [
    (name, value) for name in ("means", "quats", "scales", "opacities") for value in (float("nan"), float("inf"), -float("inf"))
]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("name", "value"), [*NOT_DRAWABLE, ("scales", 1e30), ("opacities", -1.0), ("opacities", 0.0)])
def test_unusable_gaussians_do_not_touch_the_others(name, value):
    gaussians, feature, cameras = random_scene(21, 2, 1, 30, 30, seed=3)
    keep = torch.arange(21) % 4 != 0
    results = everything(with_every_fourth(gaussians, name, value), feature, cameras)
    expected = everything(gaussians[keep], feature[keep], cameras)
    assert all(torch.equal(got, want) for got, want in zip(results[:4], expected[:4], strict=True))
    torch.testing.assert_close(results.pop(), expected.pop())  # the camera's sum is taken in another order
    for got, want in zip(results[4:], expected[4:], strict=True):
        assert torch.equal(got[keep], want)
        assert not got[~keep].any()


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("value", [1e30, -1e30, 1e15, 1e5, 1e-30, 0.0])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "sh"])
def test_extreme_values_do_not_crash(name, value):
    gaussians, feature, cameras = random_scene(21, 2, 1, 30, 30, seed=3)
    alpha = everything(with_every_fourth(gaussians, name, value), feature, cameras)[3]
    assert bool(((alpha >= 0) & (alpha <= 1)).all())


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (16, 16), (17, 15)])
def test_image_sizes(width, height):
    gaussians, feature, cameras = random_scene(50, 2, 1, width, height, seed=11)
    result = draw(Gaussians(*(t.float() for t in vars(gaussians).values())), cameras, features=feature.float())
    assert result.color.shape == (1, height, width, 3)
    assert bool(result.color.isfinite().all())
    assert bool((result.alpha <= 1).all())


def test_partial_and_repeated_backward():
    gaussians, feature, cameras = random_scene(50, 2, 2, 30, 30, seed=13)
    copy, leaves = with_gradients(gaussians, feature, torch.float32)
    result = draw(copy, cameras, features=leaves["features"])
    for image in (result.color, result.features, result.depth, result.alpha):
        once = torch.autograd.grad(image.square().sum(), list(leaves.values()), retain_graph=True, materialize_grads=True)
        again = torch.autograd.grad(image.square().sum(), list(leaves.values()), retain_graph=True, materialize_grads=True)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert once[4].norm() == 0, "alpha does not depend on colour"


def test_saved_tensors_may_move():
    """Saved-tensor hooks, which offloading and checkpointing use, hand the backward pass copies."""
    gaussians, feature, cameras = random_scene(50, 2, 2, 30, 30, seed=13)
    expected = everything(gaussians, feature, cameras)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor.clone()):
        moved = everything(gaussians, feature, cameras)
    assert all(torch.equal(a, b) for a, b in zip(moved, expected, strict=True))


def test_states_are_kept_apart():
    """Two graphs alive at once must not share what the forward pass kept."""
    scenes = [random_scene(200, 1, 1, 40, 40, seed=seed) for seed in (1, 2)]
    alone = [everything(*scene) for scene in scenes]
    copies = [with_gradients(gaussians, feature, torch.float32) for gaussians, feature, _ in scenes]
    results = [
        draw(copy, cameras, features=leaves["features"]) for (copy, leaves), (_, _, cameras) in zip(copies, scenes, strict=True)
    ]
    for result in results:
        images = [result.color, result.features, result.depth, result.alpha]
        torch.autograd.backward(
            images, [torch.randn(image.shape, generator=torch.Generator().manual_seed(2)) for image in images]
        )
    for (_, leaves), expected in zip(copies, alone, strict=True):
        assert all(torch.equal(leaf.grad, want) for leaf, want in zip(leaves.values(), expected[4:-1], strict=True))


def test_images_beyond_memory_are_our_own_error():
    gaussians, _, cameras = random_scene(5, 0, 1, 8, 8, 0, seed=0)
    many = torch.zeros(10_000, dtype=torch.long)  # more than a process can address
    large = Cameras(cameras.world_to_camera[many], cameras.K[many], 65535, 65535)
    with pytest.raises(LimitError, match="Out of memory rasterising 5 Gaussians into 10000 images"):
        draw(Gaussians(*(tensor.float() for tensor in vars(gaussians).values())), large)
