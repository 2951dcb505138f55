"""gsplat as a backend: its arguments here, its results where a CUDA device is, and that a CPU never needs it."""

import dataclasses
import importlib.util
import logging
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from render.scenes import assert_matches_oracle, random_scene
from render.test_settings import SETTINGS
from splatsense.cameras import Cameras
from splatsense.errors import DataError, SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.render import RasterSettings, Rendering, backends, cuda, reference, render, render_batch

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(importlib.util.find_spec("gsplat") is None, reason="gsplat is not installed"),
]


def moved(gaussians: Gaussians, cameras: Cameras, device: str) -> tuple[Gaussians, Cameras]:
    return gaussians.to(device), cameras.to(device)


def draw_on_cuda(gaussians: Gaussians, cameras: Cameras, features: Tensor, settings: RasterSettings) -> Rendering:
    """`render` of CPU tensors by gsplat, back on the CPU."""
    gaussians, cameras = moved(gaussians, cameras, "cuda")
    result = render(gaussians, cameras, features=features.cuda(), settings=settings, backend="gsplat")
    return Rendering(result.color.cpu(), result.depth.cpu(), result.alpha.cpu(), result.features.cpu())


class TestOnAGpu:
    pytestmark = needs_gpu

    @pytest.mark.parametrize(
        ("n", "features", "views", "width", "height", "degree"),
        [(150, 0, 1, 64, 48, 0), (90, 3, 3, 37, 21, 1), (60, 16, 2, 19, 50, 2), (40, 32, 1, 33, 31, 3), (40, 77, 2, 17, 18, 0)],
    )
    def test_matches_the_dense_oracle(self, n, features, views, width, height, degree):
        gaussians, feature, cameras = random_scene(n, features, views, width, height, degree, seed=n)
        assert_matches_oracle(gaussians, feature, cameras, draw_on_cuda, torch.float32, gradient_tolerance=1e-3)

    @pytest.mark.parametrize("settings", [each for each in SETTINGS if each.depth == "expected"], ids=str)
    def test_settings_match_the_dense_oracle(self, settings):
        gaussians, feature, cameras = random_scene(70, 2, 2, 35, 27, 1, seed=8)
        assert_matches_oracle(
            gaussians, feature, cameras, draw_on_cuda, torch.float32, gradient_tolerance=1e-3, settings=settings
        )

    @pytest.mark.parametrize("sizes", [[(40, 2), (40, 2), (40, 2)], [(40, 2), (0, 1), (25, 0), (90, 3)]])
    @pytest.mark.parametrize("degree", [0, 2])
    def test_a_batch_matches_the_reference(self, sizes, degree):
        scenes = [random_scene(n, 2, max(v, 1), 33, 21, degree, seed=i) for i, (n, v) in enumerate(sizes)]
        gaussians = [Gaussians(*(t.float().cuda() for t in vars(g).values())) for g, _, _ in scenes]
        cameras = [c[:v].to("cuda") for (_, _, c), (_, v) in zip(scenes, sizes, strict=True)]
        features = [f.float().cuda() for _, f, _ in scenes]
        got = render_batch(gaussians, cameras, features=features, backend="gsplat")
        want = render_batch(gaussians, cameras, features=features, backend="reference")
        for name in ("color", "features", "depth", "alpha"):
            torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-4, atol=2e-4)

    @pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_unusable_gaussians_are_not_drawn(self, name, value):
        gaussians, feature, cameras = random_scene(21, 2, 1, 30, 30, seed=3)
        gaussians, cameras = moved(Gaussians(*(t.float() for t in vars(gaussians).values())), cameras, "cuda")
        broken = getattr(gaussians, name).clone()
        broken[::4] = value
        keep = torch.arange(21) % 4 != 0
        feature = feature.float().cuda()
        got = render(dataclasses.replace(gaussians, **{name: broken}), cameras, features=feature)
        want = render(gaussians[keep.cuda()], cameras, features=feature[keep.cuda()])
        torch.testing.assert_close(got.color, want.color)

    def test_auto_takes_gsplat(self):
        assert backends.rasteriser("auto", torch.zeros(1, 3, device="cuda"), RasterSettings()) is cuda.rasterise_packed


def packed_scene(sizes: list[tuple[int, int]], degree: int, monkeypatch: pytest.MonkeyPatch) -> reference.Packed:
    """What `render_batch` hands to a backend."""
    caught = []

    def catch(packed, settings):
        caught.append(packed)
        return reference.rasterise_packed(packed, settings)

    monkeypatch.setattr("splatsense.render.rasteriser", lambda *_: catch)
    scenes = [random_scene(n, 2, v, 8, 6, degree, seed=i) for i, (n, v) in enumerate(sizes)]
    render_batch([g for g, _, _ in scenes], [c for _, _, c in scenes], features=[f for _, f, _ in scenes])
    return caught[0]


@pytest.mark.parametrize("degree", [0, 1])
def test_arguments_of_gsplat(degree, monkeypatch):
    packed = packed_scene([(5, 3), (5, 3)], degree, monkeypatch)
    settings = RasterSettings(antialiased=True, near_plane=0.5, far_plane=9.0, radius_clip=2.0, eps2d=0.1)
    arguments = cuda.rasterization_arguments(packed, settings)
    shapes = {name: tuple(value.shape) for name, value in arguments.items() if isinstance(value, Tensor)}
    colors = (2, 3, 5, 5) if degree else (2, 5, 5)  # [batch, (cameras,) Gaussians, colour and features]
    assert shapes == {
        "means": (2, 5, 3), "quats": (2, 5, 4), "scales": (2, 5, 3), "opacities": (2, 5), "colors": colors,
        "viewmats": (2, 3, 4, 4), "Ks": (2, 3, 3, 3),
    }  # fmt: skip
    for name in ("near_plane", "far_plane", "radius_clip", "eps2d"):
        assert arguments[name] == getattr(settings, name)
    assert (arguments["width"], arguments["height"]) == (8, 6)
    assert arguments["rasterize_mode"] == "antialiased"
    assert cuda.rasterization_arguments(packed, RasterSettings())["rasterize_mode"] == "classic"
    second = list(packed.objects())[1]
    assert torch.equal(arguments["means"][1], second.means)
    assert torch.equal(arguments["viewmats"][1], second.world_to_camera)
    assert torch.equal(arguments["colors"][1][..., :3].reshape(-1, 3), second.colors)


def gsplat_in_pytorch(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
    """`gsplat.rasterization` as its documentation has it, by our reference: [batch, camera] images and z as last channel."""
    assert options.pop("render_mode") == "RGB+D"
    assert options.pop("packed") is False
    options["antialiased"] = options.pop("rasterize_mode") == "antialiased"
    images = []
    for b in range(len(means)):
        of_views = colors[b] if colors.ndim == 4 else colors[b][None]
        gaussians = (means[b], quats[b], scales[b], opacities[b])
        parts = []
        for v in range(len(Ks[b])):
            color = of_views[min(v, len(of_views) - 1)]
            camera = Cameras(viewmats[b, v : v + 1], Ks[b, v : v + 1], width, height)
            parts.append(reference.rasterise(*gaussians, color[None, :, :3], color[:, 3:], camera, RasterSettings(**options)))
        color, feature, depth, alpha = (torch.cat(each) for each in zip(*parts, strict=True))
        images.append((torch.cat([color, feature, (depth * alpha)[..., None]], dim=-1), alpha[..., None]))
    return torch.stack([image for image, _ in images]), torch.stack([alpha for _, alpha in images]), {}


@pytest.mark.parametrize("sizes", [[(9, 2), (9, 2)], [(9, 2), (0, 1), (4, 1)]])
@pytest.mark.parametrize("degree", [0, 1])
def test_images_are_put_together(sizes, degree, monkeypatch):
    module = ModuleType("gsplat")
    module.rasterization = gsplat_in_pytorch  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "gsplat", module)
    packed = packed_scene(sizes, degree, monkeypatch)
    settings = RasterSettings(antialiased=True, near_plane=1.5)
    got, want = cuda.rasterise_packed(packed, settings), reference.rasterise_packed(packed, settings)
    for mine, truth in zip(got, want, strict=True):
        torch.testing.assert_close(mine, truth)


def test_a_cpu_never_imports_gsplat(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)  # an import of it fails now
    gaussians, feature, cameras = random_scene(9, 1, 1, 8, 6)
    for dtype in (torch.float32, torch.float64):
        one = Gaussians(*(tensor.to(dtype) for tensor in vars(gaussians).values()))
        assert bool(render(one, cameras, features=feature.to(dtype)).alpha.any())


@pytest.fixture
def cuda_means():
    """A tensor that says it is on a CUDA device, which need not exist."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(1, 3, device="cuda")


def test_what_draws_cuda_tensors(cuda_means, monkeypatch, caplog):
    monkeypatch.setattr(cuda, "problem", lambda: None)
    assert backends.rasteriser("auto", cuda_means, RasterSettings()) is cuda.rasterise_packed
    assert backends.rasteriser("gsplat", cuda_means, RasterSettings()) is cuda.rasterise_packed
    with caplog.at_level(logging.WARNING, logger="splatsense"):
        for _ in range(3):
            chosen = backends.rasteriser("auto", cuda_means, RasterSettings(depth="median"))
            assert chosen is reference.rasterise_packed
    assert caplog.text.count("no median depth") == 1
    with pytest.raises(DataError, match="no median depth"):
        backends.rasteriser("gsplat", cuda_means, RasterSettings(depth="median"))
    with pytest.raises(DataError, match=r'backend="native" takes float32 on CPU, got torch.float32 on cuda'):
        backends.rasteriser("native", cuda_means, RasterSettings())
    monkeypatch.setattr(cuda, "problem", lambda: "gsplat is out of order.")
    with caplog.at_level(logging.WARNING, logger="splatsense"):
        assert backends.rasteriser("auto", cuda_means, RasterSettings()) is reference.rasterise_packed
    assert "gsplat is out of order" in caplog.text
    with pytest.raises(SplatSenseError, match="does not work here: gsplat is out of order"):
        backends.rasteriser("gsplat", cuda_means, RasterSettings())


@pytest.fixture
def gsplat_package(tmp_path, monkeypatch):
    """Writes a package `gsplat` whose kernels come from the given lines of Python; says what is wrong with it."""

    def problem_of(kernels: str) -> str | None:
        (tmp_path / "gsplat" / "cuda").mkdir(parents=True)
        for part in ("gsplat/__init__.py", "gsplat/cuda/__init__.py"):
            (tmp_path / part).touch()
        (tmp_path / "gsplat" / "cuda" / "_backend.py").write_text(kernels)
        return cuda.problem.__wrapped__()

    for name in [name for name in sys.modules if name.partition(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    yield problem_of
    for name in ("gsplat.cuda._backend", "gsplat.cuda", "gsplat"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("kernels", "says"),
    [
        ("_C = object()", None),
        ("_C = None", "needs nvcc"),
        ("raise RuntimeError('Error building extension')", "cannot be loaded: Error building extension"),
        ("import subprocess\nsubprocess.run(['false'], check=True)", "cannot be loaded: Command"),
    ],
)
def test_kernels_of_gsplat_that_cannot_be_had(gsplat_package, kernels, says):
    found = gsplat_package(kernels)
    assert found is None if says is None else says in found


def test_gsplat_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "splatsense[gpu]"' in cuda.problem.__wrapped__()


def test_backends_that_do_not_fit():
    means = torch.zeros(1, 3)
    with pytest.raises(DataError, match=r'backend="gsplat" takes float32 on CUDA, got torch.float32 on cpu'):
        backends.rasteriser("gsplat", means, RasterSettings())
    with pytest.raises(DataError, match="backend must be"):
        backends.rasteriser("vulkan", means, RasterSettings())
