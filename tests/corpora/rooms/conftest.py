"""Furniture libraries of boxes, and what rooms take from them."""

from pathlib import Path

import pytest

from box_furniture import write_libraries
from splatsense.corpora.furniture import furniture, furniture_archives
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.textures import Texture, read_textures


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four .sh3f libraries and a sweethome3d.jar."""
    folder = tmp_path_factory.mktemp("libraries")
    write_libraries(folder)
    return folder


@pytest.fixture(scope="session")
def train_pieces(libraries: Path) -> Pieces:
    return Pieces(furniture(libraries), "train")


@pytest.fixture(scope="session")
def test_pieces(libraries: Path) -> Pieces:
    return Pieces(furniture(libraries), "test")


@pytest.fixture(scope="session")
def textures(libraries: Path) -> list[Texture]:
    return read_textures(furniture_archives(libraries), "train")
