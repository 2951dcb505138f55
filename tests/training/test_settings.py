"""What all settings of runs share. What decides a result is pinned: a run begun before a change must go on after it."""

import json
import math
from dataclasses import fields, replace

import pytest

from splatsense.clip_gs.augment import AugmentConfig
from splatsense.clip_gs.pretrain_config import PretrainConfig as ClipGSConfig
from splatsense.errors import DataError
from splatsense.gaussian_cross.pretrain_config import PretrainConfig as GaussianCrossConfig
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.segmentation.config import SegmentationConfig

HOW_IT_RUNS = {"checkpoint_every": 7, "log_every": 3, "tensorboard": True, "prefetch": 0}
EVALUATED = HOW_IT_RUNS | {"evaluate_every": 5}
CONFIGS = {
    "clip-gs": ClipGSConfig(
        ("a", "b"), "run", orders=("xyz", "hilbert"), holdout="chair", weights=(1.0, 0.5), augment=AugmentConfig(turn=30.0),
        checkpointing=True, seed=3, **EVALUATED,
    ),
    "gaussian-cross": GaussianCrossConfig(
        ("a", "b"), "run", validation=("c",), cache="features", intrinsics=(500.0, 500.0, 320.0, 240.0), voxel=0.04,
        grid=(32, 32, 16), seed=3, **EVALUATED,
    ),
    "scene-contrast": ContrastConfig(("a", "b"), "run", voxel=0.05, seed=3, **HOW_IT_RUNS),
    "segmentation": SegmentationConfig("scenes", "run", train_splits=("train", "val"), seed=3, **EVALUATED),
}  # fmt: skip
SETTINGS = {
    "clip-gs": {
        "triplets": ["a", "b"], "size": "tiny", "tokenizer": "refinement", "orders": ["xyz", "hilbert"], "gaussians": 0,
        "patches": 0, "patch_size": 0, "teacher": "mini", "name": "clip-gs-tiny", "init": "", "holdout": "chair",
        "weights": [1.0, 0.5], "epochs": 60, "batch_size": 32, "accumulate": 1, "views": 5, "voting": "softmax",
        "voting_temperature": 0.1, "image_map": 0.0, "image_weight": 1.0, "temperature": 0.07, "fixed_temperature": False,
        "learning_rate": 0.001, "pretrained_learning_rate": 0.0001, "layer_decay": 0.95, "weight_decay": 0.1, "warmup": 0.1,
        "clip_gradient": 5.0, "patch_dropout": 0.75, "drop_path": 0.1, "centering": 0.5, "ema": 0.998,
        "precision": "bfloat16", "seed": 3,
        "augment": {
            "turn": 30.0, "any_turn": 0.2, "tilt": 10.0, "scale": 0.25, "stretch": 0.25, "shift": 0.1, "mirror": 0.5,
            "drop_color": 0.3, "color_jitter": 0.2, "splat_scale": 1.0,
        },
    },
    "gaussian-cross": {
        "scenes": ["a", "b"], "size": "tiny", "teacher": "mini", "intrinsics": [500.0, 500.0, 320.0, 240.0], "name": "",
        "steps": 2000, "batch_size": 1, "voxel": 0.04, "most_voxels": None, "views": None, "width": None, "height": None,
        "mask_ratio": None, "mask_side": None, "dropout": None, "rotate": None, "cuboid_side": None, "grid": [32, 32, 16],
        "levels": None, "anchors": None, "reach": None, "threshold": None, "feature_channels": None, "color_weight": 10.0,
        "depth_weight": 10.0, "semantic_weight": 10.0, "center_features": True, "learning_rate": 0.001, "weight_decay": 0.05,
        "warmup": 0.05, "clip_gradient": 5.0, "seed": 3,
    },
    "scene-contrast": {
        "scenes": ["a", "b"], "size": "tiny", "name": "", "steps": 2000, "batch_size": 1, "voxel": 0.05, "most_voxels": None,
        "crop": 0.6, "pairs": 2048, "temperature": 0.4, "hidden": 128, "dim": 64, "learning_rate": 0.001,
        "weight_decay": 0.05, "warmup": 0.05, "clip_gradient": 5.0, "seed": 3,
    },
    "segmentation": {
        "scenes": "scenes", "labels": "scannet20", "task": "semantic", "protocol": "scratch", "backbone": "", "cached": False,
        "size": "tiny", "name": "segmentation", "train_splits": ["train", "val"], "val_split": "val",
        "leave_out": ["wall", "floor"], "voxel": 0.02, "crop_points": 102400, "crop_share": 0.0, "mix": 0.8, "lovasz": 1.0,
        "epochs": 800, "steps": 0, "batch_size": 32, "learning_rate": 0.005, "backbone_rate": 1.0,
        "weight_decay": 0.05, "clip_gradient": 10.0,
        "precision": "float32", "scene_share": 1.0, "scene_list": "", "points": 0, "point_lists": "", "limit_seed": 0,
        "seed": 3,
        "augment": {
            "dropout": 0.2, "dropout_chance": 0.2, "thin": 1.0, "turn_chance": 0.5, "tilt": 2.8125, "tilt_chance": 0.5,
            "scale": [0.9, 1.1], "flip_chance": 0.5, "jitter": 0.005, "jitter_clip": 0.02, "elastic": [[0.2, 0.4], [0.8, 1.6]],
            "elastic_chance": 0.95, "contrast_chance": 0.2, "color_shift": 0.05, "color_shift_chance": 0.95,
            "color_jitter": 0.05, "color_jitter_chance": 0.95,
        },
        "cluster": {"radius": 1.5, "least": 50, "least_proposal": 100},
    },
}  # fmt: skip

every_method = pytest.mark.parametrize("method", CONFIGS)


@every_method
def test_what_decides_the_result_keeps_its_names_and_order(method):
    assert json.dumps(CONFIGS[method].settings()) == json.dumps(SETTINGS[method])


@every_method
def test_a_field_decides_the_result_or_says_how_a_run_goes(method):
    config = CONFIGS[method]
    own = {field.name for field in fields(config)}
    optional = {"evaluate_every"} if method == "scene-contrast" else set()  # it has nothing to evaluate
    assert set(config.HOW_IT_RUNS) - optional <= own
    assert own - set(config.HOW_IT_RUNS) == config.settings().keys()


@every_method
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("batch_size", 0, "--batch-size: must be at least 1, got 0"),
        ("checkpoint_every", 0, "--checkpoint-every: must be at least 1, got 0"),
        ("log_every", -1, "--log-every: must be at least 1, got -1"),
        ("prefetch", -1, "--prefetch: must not be negative, got -1"),
        ("weight_decay", -0.1, "--weight-decay: must not be negative, got -0.1"),
        ("learning_rate", 0.0, "--learning-rate: must be above 0, got 0.0"),
        ("learning_rate", math.nan, "--learning-rate: must be above 0, got nan"),
        ("clip_gradient", -1.0, "--clip-gradient: must be above 0, got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused_by_every_method(method, name, wrong, message):
    with pytest.raises(DataError, match=message):
        replace(CONFIGS[method], **{name: wrong})


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("centering", 1.5, r"--centering: must lie in \[0, 1\], got 1.5"),
        ("image_weight", -1.0, "--image-weight: must not be negative, got -1.0"),
        ("pretrained_learning_rate", 0.0, "--pretrained-learning-rate: must be above 0, got 0.0"),
        ("patch_dropout", 1.0, r"--patch-dropout: must lie in \[0, 1\), got 1.0"),
        ("ema", math.nan, r"--ema: must lie in \[0, 1\), got nan"),
    ],
)
def test_numbers_out_of_range_are_refused_by_clip_gs(name, wrong, message):
    with pytest.raises(DataError, match=message):
        replace(CONFIGS["clip-gs"], **{name: wrong})


@pytest.mark.parametrize("method", [method for method in CONFIGS if method != "segmentation"])  # whose warm-up is fixed
def test_a_warm_up_is_a_fraction_of_the_steps(method):
    with pytest.raises(DataError, match=r"--warmup: must lie in \[0, 1\), got 2.0"):
        replace(CONFIGS[method], warmup=2.0)


@pytest.mark.parametrize(("name", "wrong"), [("mix", 1.5), ("crop_share", -0.1), ("scene_share", 2.0)])
def test_shares_out_of_range_are_refused_by_segmentation(name, wrong):
    with pytest.raises(DataError, match=rf"--{name.replace('_', '-')}: must lie in \[0, 1\], got {wrong}"):
        replace(CONFIGS["segmentation"], **{name: wrong})


def test_a_model_is_called_by_its_size():
    config = CONFIGS["clip-gs"]
    assert (config.model_name, replace(config, size="base").model_name) == ("clip-gs-tiny", "clip-gs-base")
    assert replace(config, size="base", name="mine").settings()["name"] == "mine"


@pytest.mark.parametrize("method", [method for method in CONFIGS if method != "scene-contrast"])
def test_evaluations_are_not_a_negative_number_of_steps_apart(method):
    with pytest.raises(DataError, match="--evaluate-every: must not be negative, got -1"):
        replace(CONFIGS[method], evaluate_every=-1)
