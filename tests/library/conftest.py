from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from color_model import COLORS, ColorModel

from splatsense.gaussians import Gaussians
from splatsense.io import save
from splatsense.library import Library


def blob(color: tuple[float, float, float], seed: int = 0, count: int = 24) -> Gaussians:
    """A cloud of Gaussians of about one colour; no two seeds give the same file."""
    generator = torch.Generator().manual_seed(seed)
    rgb = (torch.tensor(color) + 0.1 * torch.randn(count, 3, generator=generator)).clamp(0, 1)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    scales = torch.full((count, 3), 0.1)
    return Gaussians.from_rgb(torch.randn(count, 3, generator=generator), quats, scales, torch.ones(count), rgb)


@pytest.fixture
def model() -> ColorModel:
    return ColorModel()


@pytest.fixture
def write_blob() -> Callable[..., Path]:
    """Writes a blob of a colour to a file."""

    def write(path: Path, color: str = "red", seed: int = 0, count: int = 24) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(blob(COLORS[color], seed, count), path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, write_blob) -> Path:
    """Three of each of three colours, in two formats and two levels of folders."""
    root = tmp_path / "assets"
    for seed in range(3):
        write_blob(root / f"red_{seed}.splat", "red", seed)
        write_blob(root / "more" / f"GreenThing{seed}.ply", "green", 10 + seed)
        write_blob(root / "more" / "deep" / f"blue-{seed}.splat", "blue", 20 + seed)
    return root


@pytest.fixture
def library(tmp_path: Path, model: ColorModel):
    """A new library with the color model."""
    with Library(tmp_path / "library", model) as opened:
        yield opened
