"""A room to look into, and a small model that has learned it: shared by the tests of the API and of the page."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from segmentation_scenes import SMALL, room
from splatsense.labels import SCANNET20
from splatsense.library import Library
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.export import write_points
from splatsense.segmentation.model import SegmentationModel, save_segmentation_model
from splatsense.segmentation.network import Segmenter, semantic_loss
from splatsense.segmentation.points import points_of_scene
from splatsense.sparse import voxelize
from splatsense.web.catalogue import Catalogue
from splatsense.web.scene_models import SceneModels
from splatsense.web.settings import WebSettings

VOXEL, STEPS = 0.1, 60
ROOM = room()
SETTINGS = WebSettings(scene_gaussians=9_000)
"""The room has 10,000 points, the bundled objects fewer."""


def trained(steps: int = STEPS) -> Segmenter:
    """A network that has learned the classes of the room; its instances are what touches."""
    torch.manual_seed(0)
    points = points_of_scene(ROOM, SCANNET20)
    voxels, inverse = voxelize(points.coord - points.coord.amin(0), VOXEL, points.features)
    voxels = voxels.with_features(torch.cat([voxels.features[:, :3], normalize(voxels.features[:, 3:], dim=1)], dim=1))
    classes = torch.empty(len(voxels), dtype=torch.long).scatter_(0, inverse.long(), points.semantic)
    network = Segmenter(SMALL, 20, instances=True)
    torch.nn.init.zeros_(network.offsets[-1].weight)
    torch.nn.init.zeros_(network.offsets[-1].bias)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(steps):
        loss = semantic_loss(network(voxels).logits, classes, 0.0)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="session")
def scene_model(tmp_path_factory) -> Path:
    """The folder of such a model."""
    folder = tmp_path_factory.mktemp("scene-model") / "model"
    cluster = ClusterConfig(2.0, 5, 10)
    save_segmentation_model(folder, SegmentationModel(trained(), SCANNET20, VOXEL, cluster, {"name": "room"}))
    return folder


@pytest.fixture(scope="session")
def scene_models(scene_model) -> SceneModels:
    """What a server was started with."""
    return SceneModels(str(scene_model), str(scene_model))


@pytest.fixture(scope="session")
def room_file(tmp_path_factory) -> Path:
    """The room as a point cloud, z up."""
    path = tmp_path_factory.mktemp("scans") / "room.ply"
    write_points(path, ROOM.coord, ROOM.color, dict(zip(("nx", "ny", "nz"), ROOM.normal.T, strict=True)))
    return path


@pytest.fixture(scope="session")
def room_library(room_file, tmp_path_factory) -> Path:
    """A library of it and of nothing else."""
    path = tmp_path_factory.mktemp("room") / "library"
    with Library(path) as library:
        library.add(room_file, progress=False, draw=True)
        Catalogue(library).snapshot()  # keeps the embeddings of the labels
    return path


@pytest.fixture
def scene_library(room_library, tmp_path) -> Path:
    """A copy of it, for one test."""
    return shutil.copytree(room_library, tmp_path / "library")
