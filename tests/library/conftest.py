from collections.abc import Callable
from pathlib import Path

import pytest

from library.color_model import COLORS, ColorModel, blob
from splatsense.io import save
from splatsense.library import Library


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
    """A new library with the color model. It reads in this process; test_reading.py has the processes."""
    with Library(tmp_path / "library", model, isolated=False) as opened:
        yield opened
