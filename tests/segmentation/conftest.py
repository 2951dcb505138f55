import pytest
import torch

from segmentation_scenes import SMALL, write_rooms
from splatsense.labels import SCANNET20
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.model import SegmentationModel, save_segmentation_model
from splatsense.segmentation.network import Segmenter


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """Folders of two small models with random weights: of classes, and of instances too."""
    folders = {}
    for task in ("semantic", "instance"):
        torch.manual_seed(0)
        network = Segmenter(SMALL, 20, task == "instance")
        model = SegmentationModel(network, SCANNET20, 0.1, ClusterConfig(3.0, 5, 10), {"name": "small"})
        folders[task] = tmp_path_factory.mktemp(task) / "model"
        save_segmentation_model(folders[task], model)
    return folders
