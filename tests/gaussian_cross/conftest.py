"""A small closed room, filmed and fused as a posed recording is, and settings that train on it in seconds."""

from dataclasses import replace
from pathlib import Path

import pytest

from scene_files import write_seven_scenes
from splatsense.corpora.recordings import RecordingSettings, read_recording
from splatsense.gaussian_cross import pretrain_config, sizes
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.scenes import save_scene
from synthetic_room import room_frames

SMALL_UNET = UNetConfig(stem_channels=8, stem_kernel=3, channels=(8, 16, 16, 16), layers=(1, 1, 1, 1))


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    """A posed RGB-D recording in the form of 7-Scenes, with its intrinsics beside it."""
    folder = tmp_path_factory.mktemp("recording")
    frames = write_seven_scenes(folder / "seq-01")
    K = frames.cameras.K[0].tolist()
    (folder / "camera-intrinsics.txt").write_text("\n".join(" ".join(map(str, row)) for row in K) + "\n")
    return folder


@pytest.fixture(scope="session")
def scene_folder(recording, tmp_path_factory) -> Path:
    """It as a scene."""
    folder = tmp_path_factory.mktemp("scenes") / "train" / "room"
    save_scene(read_recording(recording / "seq-01", recording, RecordingSettings(voxel=0.04)), folder)
    return folder


def make_small(monkeypatch) -> None:
    """Makes size "tiny" smaller still: a step takes tens of milliseconds."""
    original = sizes.recipe

    def recipe(size):
        base = original(size)
        decoder = replace(
            base.decoder, grid=(16, 16, 16), height=1.0, volume_channels=16, base_maps=8, levels=2, refined_channels=16,
            hidden=16, feature_channels=4,
        )  # fmt: skip
        sample = replace(base.sample, voxel=0.1, views=3, width=48, height=36, mask_side=4)
        return replace(base, backbone=SMALL_UNET, decoder=decoder, sample=sample)

    monkeypatch.setattr(pretrain_config, "recipe", recipe)


@pytest.fixture
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture
def config(small, scene_folder, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        scenes=(str(scene_folder),), out=str(tmp_path / "run"), steps=6, checkpoint_every=3, log_every=1, teacher="none",
    )  # fmt: skip


@pytest.fixture(scope="session")
def known_frames():
    return room_frames(8, 96, 72)
