import shutil
import sys
from pathlib import Path

import pytest

from splatsense.teachers import MiniTeacher
from splatsense.teachers.imagenet_embeddings import compute_imagenet_embeddings
from splatsense.teachers.minilm import MiniLM
from splatsense.teachers.pinned_file import PinnedFile

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="session")
def teacher():
    return MiniTeacher()


@pytest.fixture(scope="session")
def photographs():
    return [IMAGES / f"{name}.jpg" for name in ("cat", "coffee", "photographer", "rocket")]


@pytest.fixture(scope="session")
def class_embeddings():
    """Computed anew from the class names; two seconds."""
    return compute_imagenet_embeddings(MiniLM())


@pytest.fixture
def tamper(monkeypatch, tmp_path):
    """Put a copy of a package first on the path, one byte of one of its files flipped; returns that file."""

    def tampered(pinned: PinnedFile) -> Path:
        package, _, inside = pinned.path.partition("/")
        shutil.copytree(pinned.locate().parents[inside.count("/")], tmp_path / package)
        file = tmp_path / pinned.path
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, package, raising=False)
        return file

    return tampered
