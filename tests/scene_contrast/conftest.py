"""A small closed room, filmed and fused as a posed recording is, and settings that train on it in seconds."""

from dataclasses import replace

import pytest

from scene_files import write_seven_scenes
from splatsense.corpora.recordings import RecordingSettings, read_recording
from splatsense.gaussian_cross import sizes
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.scene_contrast import config as config_module
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scenes import save_scene

SMALL_UNET = UNetConfig(stem_channels=8, stem_kernel=3, channels=(8, 16, 16, 16), layers=(1, 1, 1, 1))


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory):
    recording = tmp_path_factory.mktemp("recording") / "seq-01"
    frames = write_seven_scenes(recording)
    K = frames.cameras.K[0].tolist()
    (recording.parent / "camera-intrinsics.txt").write_text("\n".join(" ".join(map(str, row)) for row in K) + "\n")
    folder = tmp_path_factory.mktemp("scenes") / "train" / "room"
    save_scene(read_recording(recording, recording.parent, RecordingSettings(voxel=0.04)), folder)
    return folder


def make_small(monkeypatch):
    """Makes size "tiny" smaller still: a step takes tens of milliseconds."""
    base = sizes.recipe("tiny")
    small = replace(base, backbone=SMALL_UNET, sample=replace(base.sample, voxel=0.1))
    monkeypatch.setattr(config_module, "recipe", lambda size: small)


@pytest.fixture
def config(monkeypatch, scene_folder, tmp_path):
    make_small(monkeypatch)
    return ContrastConfig(
        (str(scene_folder),), str(tmp_path / "run"), steps=6, pairs=200, checkpoint_every=3, log_every=1, dim=16
    )
