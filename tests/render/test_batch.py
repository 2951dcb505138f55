"""`render_batch`: the same as one object at a time, to the last bit."""

import dataclasses

import pytest
import torch
from torch import Tensor

from render.scenes import random_scene, with_camera_gradients, with_gradients
from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.native import load_native
from splatsense.render import RasterSettings, Rendering, render, render_batch

IMAGES = ("color", "features", "depth", "alpha")
Scene = tuple[Gaussians, Tensor, Cameras]


def objects(degrees: tuple[int, ...], features: int = 3) -> list[Scene]:
    """Objects of unequal sizes and numbers of views; one of them is empty and one has no view."""
    sizes = [(40, 2), (0, 1), (300, 1), (17, 3), (25, 0), (90, 2)]
    scenes = []
    for i, (n, views) in enumerate(sizes):
        gaussians, feature, cameras = random_scene(n, features, max(views, 1), 33, 21, degrees[i % len(degrees)], seed=i)
        scenes.append((gaussians, feature, cameras[:views]))
    return scenes


def leaves_of(scenes: list[Scene], dtype: torch.dtype) -> tuple[list[Gaussians], list[Cameras], list[Tensor], list[Tensor]]:
    gaussians = [with_gradients(each, feature, dtype) for each, feature, _ in scenes]
    cameras = [with_camera_gradients(each, dtype) for _, _, each in scenes]
    leaves = [leaf for (_, a), (_, b) in zip(gaussians, cameras, strict=True) for leaf in (a | b).values()]
    return [g for g, _ in gaussians], [c for c, _ in cameras], [a["features"] for _, a in gaussians], leaves


def backward(result: Rendering, weights: list[Tensor]) -> None:
    if not result.color.requires_grad:
        return  # nothing was drawn
    sum((getattr(result, name) * weight).sum() for name, weight in zip(IMAGES, weights, strict=True)).backward()


def gradients(leaves: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def assert_same_as_a_loop(scenes: list[Scene], settings: RasterSettings, backend: str) -> None:
    background = torch.tensor([0.3, 0.6, 0.1])
    gaussians, cameras, features, leaves = leaves_of(scenes, torch.float32)
    together = render_batch(gaussians, cameras, features=features, background=background, settings=settings, backend=backend)
    weights = [torch.randn(getattr(together, name).shape, generator=torch.Generator().manual_seed(0)) for name in IMAGES]
    backward(together, weights)
    gaussians, cameras, features, alone_leaves = leaves_of(scenes, torch.float32)
    first = 0
    for one, camera, feature in zip(gaussians, cameras, features, strict=True):
        alone = render(one, camera, features=feature, background=background, settings=settings, backend=backend)
        views = slice(first, first + len(camera))
        for name in IMAGES:
            assert torch.equal(getattr(together, name)[views], getattr(alone, name)), name
        backward(alone, [weight[views] for weight in weights])
        first += len(camera)
    for got, want in zip(gradients(leaves), gradients(alone_leaves), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("degrees", [(0,), (2,), (0, 3, 1)])
@pytest.mark.parametrize("settings", [RasterSettings(), RasterSettings(antialiased=True, depth="median")], ids=str)
def test_same_bits_as_a_loop(degrees, settings, backend):
    assert_same_as_a_loop(objects(degrees), settings, backend)


@pytest.mark.skipif(load_native() is None, reason="the native library is not built (make native)")
@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.usefixtures("level")
def test_same_bits_as_a_loop_for_any_number_of_threads(threads):
    before = torch.get_num_threads()
    large = [random_scene(2500, 2, 2, 130, 110, 1, seed=seed) for seed in (1, 2, 3)]
    try:
        torch.set_num_threads(threads)
        assert_same_as_a_loop(large, RasterSettings(depth="median"), "native")
    finally:
        torch.set_num_threads(before)


def test_a_background_for_each_view(backend):
    scenes = objects((0,), features=0)
    gaussians, cameras, _, _ = leaves_of(scenes, torch.float32)
    views = sum(map(len, cameras))
    background = torch.rand(views, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = render_batch(gaussians, cameras, backend=backend)
    result = render_batch(gaussians, cameras, background=background, backend=backend)
    expected = plain.color + (1 - plain.alpha)[..., None] * background[:, None, None]
    torch.testing.assert_close(result.color, expected)
    result.color.sum().backward()
    torch.testing.assert_close(background.grad, (1 - plain.alpha).sum((1, 2))[:, None].expand(views, 3))


def test_errors_name_what_is_wrong():
    gaussians, feature, cameras = random_scene(4, 2, 1, 8, 8)
    wider = dataclasses.replace(cameras, width=9)
    floats = Gaussians(*(value.float() for value in vars(gaussians).values()))
    cases = {
        r"2 Gaussians, 1 Cameras": lambda: render_batch([gaussians] * 2, [cameras]),
        r"at least one object": lambda: render_batch([], []),
        r"1 Gaussians, 1 Cameras, 2 features": lambda: render_batch([gaussians], [cameras], features=[feature] * 2),
        r"one image size, got 8 x 8, 9 x 8": lambda: render_batch([gaussians] * 2, [cameras, wider]),
        r"differ in their channels": lambda: render_batch([gaussians] * 2, [cameras] * 2, features=[feature, feature[:, :1]]),
        r"means is torch.float32 on cpu, but": lambda: render_batch([gaussians, floats], [cameras] * 2),
        r"expected \(3,\) or \(2, 3\)": lambda: render_batch([gaussians] * 2, [cameras] * 2, background=torch.zeros(4, 3)),
    }
    for message, call in cases.items():
        with pytest.raises(DataError, match=message):
            call()
