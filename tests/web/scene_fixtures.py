"""A room to look into, and a small model that has learned it: shared by the tests of the API and of the page."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from segmentation_scenes import SMALL, room
from splatsense.library import Library
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.export import write_points
from splatsense.segmentation.model import SegmentationModel, save_segmentation_model
from splatsense.segmentation.network import Segmenter, semantic_loss
from splatsense.segmentation.points import points_of_scene
from splatsense.sparse import voxelize
from splatsense.web.scene_models import SceneModels
from splatsense.web.settings import WebSettings

VOXEL, STEPS = 0.1, 60
ROOM = room()
SETTINGS = WebSettings(scene_gaussians=9_000)
"""The room has 10,000 points, the bundled objects fewer."""


def trained(steps: int = STEPS) -> Segmenter:
    """A network that has learned the classes of the room; its instances are what touches."""
    torch.manual_seed(0)
    points = points_of_scene(ROOM, "scannet20")
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
    save_segmentation_model(
        folder, SegmentationModel(trained(), "scannet20", VOXEL, cluster, ("wall", "floor"), {"name": "room"})
    )
    return folder


@pytest.fixture(scope="session")
def scene_models(scene_model) -> SceneModels:
    """What a server was started with."""
    return SceneModels(segmentation=str(scene_model))


@pytest.fixture
def scene_library(tmp_path) -> Path:
    """A library of the room, a point cloud with z up, and of nothing else."""
    (tmp_path / "scans").mkdir()
    normals = dict(zip(("nx", "ny", "nz"), ROOM.normal.T, strict=True))
    write_points(tmp_path / "scans" / "room.ply", ROOM.coord, ROOM.color, normals)
    with Library(tmp_path / "library") as library:
        library.add(tmp_path / "scans", progress=False, draw=True)
    return tmp_path / "library"
