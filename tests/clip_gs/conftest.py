import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from clip_gs.test_tokenizer import SMALL
from splatsense.clip_gs import pretrain as pretrain_module
from splatsense.clip_gs import pretrain_config as config_module
from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.corpora import CorpusObject
from splatsense.mesh import Material, Mesh

TRIPLETS = TripletConfig(method="surface", gaussians=256, views=3, size=32)
BOX_FACES = np.array(
    [
        [0, 2, 1],
        [0, 3, 2],
        [4, 5, 6],
        [4, 6, 7],
        [0, 1, 5],
        [0, 5, 4],
        [1, 2, 6],
        [1, 6, 5],
        [2, 3, 7],
        [2, 7, 6],
        [3, 0, 4],
        [3, 4, 7],
    ],
    np.int32,
)


class FakeTeacher:
    """Texts hash to fixed directions; pictures go to the direction of their mean colour. Only for unit tests."""

    name, dim, hash = "fake", 16, "f" * 64

    def __init__(self):
        self.pictures_seen = 0

    def encode_text(self, texts):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = [torch.randn(self.dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, self.dim)

    def encode_images(self, images):
        self.pictures_seen += len(images)
        basis = torch.randn(3, self.dim, generator=torch.Generator().manual_seed(5))
        colors = [torch.from_numpy(np.asarray(image, np.float32)).mean((0, 1)) / 255 - 0.5 for image in images]
        assert all(isinstance(image, Image.Image) for image in images)
        return normalize(torch.stack(colors) @ basis, dim=-1)


class FakeFeatureTeacher(FakeTeacher):
    """Its pooled features are the mean colour, so a map can be fitted to them."""

    def encode_image_features(self, images):
        return torch.stack([torch.from_numpy(np.asarray(image, np.float32)).mean((0, 1)) / 255 for image in images])

    def embed_features(self, features):
        basis = torch.randn(3, self.dim, generator=torch.Generator().manual_seed(5))
        return normalize((features - 0.5) @ basis, dim=-1)


@pytest.fixture
def feature_teacher():
    return FakeFeatureTeacher()


@pytest.fixture
def teacher():
    return FakeTeacher()


def make_box(extents, color) -> Mesh:
    x, y, z = extents
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
    vertices = (np.array(corners, np.float32) - 0.5) * np.array([x, y, z], np.float32)
    material = Material(np.array([*color, 1], np.float32))
    return Mesh(vertices, BOX_FACES, np.zeros(12, np.int32), np.zeros(12, np.int32), (material,))


def make_boxes() -> list[CorpusObject]:
    """Eight boxes that differ in shape and colour, named after both."""
    shapes = {"cube": (1, 1, 1), "plank": (3, 0.2, 1), "pole": (0.2, 3, 0.2), "panel": (2, 2, 0.1)}
    colors = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}
    return [
        CorpusObject(f"{c}_{s}", f"{c} {s}", lambda e=e, v=v: make_box(e, v), label=s, licence="CC0-1.0")
        for s, e in shapes.items()
        for c, v in colors.items()
    ]


@pytest.fixture
def boxes():
    return make_boxes()


@pytest.fixture
def mesh_folder(tmp_path):
    """Ten boxes as .obj files, the seventh of them without faces. Unlike `boxes` it can be read by other processes."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    for number in range(10):
        mesh = make_box((1 + number / 5, 1, 0.5), (0.1 * number, 0.5, 0.2))
        lines = [f"v {x} {y} {z} {mesh.materials[0].color[0]} 0.5 0.2" for x, y, z in mesh.vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1] if number != 6 else []
        (folder / f"box{chr(97 + number)}.obj").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def setup(boxes, tmp_path, teacher, monkeypatch):
    """Triplets of eight boxes, a network of a few thousand weights, and the fake teacher."""
    monkeypatch.setattr(pretrain_module, "load_teacher", lambda name: teacher)
    monkeypatch.setattr(config_module, "encoder_config", lambda size, dim: replace(SMALL, embed_dim=dim))
    # One caption each: to the fake teacher, two captions of an object have nothing in common.
    monkeypatch.setattr("splatsense.clip_gs.triplets.captions", lambda item, *look: [item.name])
    build_triplets(boxes, tmp_path / "triplets", TRIPLETS)
    return PretrainConfig(
        triplets=(str(tmp_path / "triplets"),),
        out=str(tmp_path / "run"),
        epochs=6,
        batch_size=4,
        views=2,
        checkpoint_every=3,
        ema=0.5,
    )
