import pytest

from splatsense.errors import DataError
from splatsense.segmentation.command import TrainOptions
from splatsense.segmentation.recipes import Limits

# learning rate, batch, epochs, crop, share of the crop, Mix3D, Lovasz, elastic distortions
RELEASED = {
    ("scannet20", "semantic"): (5e-3, 32, 800, 102_400, 0, 0.8, 1, 2),
    ("scannet200", "semantic"): (5e-3, 32, 800, 102_400, 0, 0.8, 1, 2),
    ("s3dis", "semantic"): (3e-3, 24, 3000, 204_800, 0, 0.8, 1, 0),
    ("scannet20", "instance"): (6e-3, 12, 800, 102_400, 0.8, 0, 1, 2),
    ("scannet200", "instance"): (5e-3, 24, 800, 102_400, 0.8, 0, 1, 2),
}


@pytest.mark.parametrize(("recipe", "task"), RELEASED)
def test_recipes_have_the_released_settings(recipe, task):
    config = TrainOptions("data", "out", recipe, task).config()
    found = (config.learning_rate, config.batch_size, config.epochs, config.crop_points, config.crop_share, config.mix,
             config.lovasz, len(config.augment.elastic))  # fmt: skip
    assert found == RELEASED[recipe, task]
    assert (config.labels, config.size, config.weight_decay, config.voxel) == (recipe, "base", 0.05, 0.02)
    assert config.augment.dropout_chance == (0.5 if task == "instance" else 0.2)
    assert config.augment.color_shift == (0.1 if task == "instance" else 0.05)


def test_tensorboard_is_a_switch():
    assert TrainOptions("data", "out", tensorboard=True).config().tensorboard
    assert not TrainOptions("data", "out").config().tensorboard


def test_limited_data_has_its_own_rate_and_batch():
    config = TrainOptions("data", "out", "scannet20", limits=Limits(points=20)).config()
    assert (config.learning_rate, config.batch_size, config.points) == (3e-3, 24, 20)


def test_rooms_have_rates_for_each_protocol():
    found = {}
    starts = {"scratch": {}, "finetune": {"backbone": "rooms20-tiny"}, "probe": {"backbone": "random:tiny", "probe": True}}
    for name, start in starts.items():
        config = TrainOptions("data", "out", **start).config()
        found[name] = (config.protocol, config.learning_rate, config.backbone_rate)
    assert found == {
        "scratch": ("scratch", 1e-2, 1), "finetune": ("finetune", 5e-3, 0.3), "probe": ("probe", 0.02, 1),
    }  # fmt: skip
    assert TrainOptions("data", "out", backbone="rooms20-tiny", backbone_rate=0.1).config().backbone_rate == 0.1


def test_areas_of_s3dis():
    config = TrainOptions("data", "out", "s3dis", area=2).config()
    assert config.val_split == "Area_2"
    assert config.train_splits == ("Area_1", "Area_3", "Area_4", "Area_5", "Area_6")


def test_what_is_given_replaces_the_recipe():
    config = TrainOptions("data", "out", batch_size=2, learning_rate=1e-3, epochs=3, seed=4).config()
    assert (config.batch_size, config.learning_rate, config.epochs, config.steps, config.seed) == (2, 1e-3, 3, 0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe": True}, "--probe: needs --backbone"),
        ({"recipe": "s3dis", "task": "instance"}, "semantic segmentation"),
        ({"recipe": "s3dis", "area": 7}, "--area"),
        ({"size": "huge"}, "--size huge"),
        ({"backbone": "x", "size": "tiny"}, "--size"),
        ({"backbone": "x", "probe": True, "task": "instance"}, "--task semantic"),
        ({"batch_size": 0}, "--batch-size"),
        ({"precision": "float16"}, "--precision"),
        ({"mix": 1.5}, "--mix"),
        ({"limits": Limits(scene_share=0.0)}, "--scene-share"),
        ({"limits": Limits(points=20, point_lists="x")}, "--points and --point-lists"),
        ({"limits": Limits(scene_share=0.1, scene_list="x")}, "--scene-share and --scene-list"),
    ],
)
def test_settings_that_contradict(changes, message):
    with pytest.raises(DataError, match=message):
        TrainOptions("data", "out", **changes).config()
