import os

import numpy as np
import pytest
import torch

from splatsense.errors import CheckpointError, DataError
from splatsense.teachers import MiniTeacher
from splatsense.teachers.dense import DenseTeacher, MiniDenseTeacher, load_dense_teacher
from splatsense.teachers.feature_cache import FeatureCache

IMAGES = torch.rand(2, 48, 80, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("layer", "dim"), [("block", 352), ("head", 1280), ("classes", 384)])
def test_every_place_of_an_image_has_a_feature(layer, dim):
    teacher = MiniDenseTeacher(layer, 16)
    assert isinstance(teacher, DenseTeacher)
    features = teacher.encode_dense(IMAGES)
    assert features.shape == (2, 3, 5, dim) == (*features.shape[:3], teacher.dim)
    assert not features.requires_grad
    assert torch.equal(features, teacher.encode_dense(IMAGES))
    assert not torch.allclose(features[0], features[1])


def test_layers_are_those_of_the_pooled_network():
    mini, network = MiniTeacher(), MiniDenseTeacher("head", 32)
    picture = np.asarray(torch.rand(260, 260, 3, generator=torch.Generator().manual_seed(1)).mul(255).byte())
    pooled = mini.encode_image_features([picture])
    dense = network.encode_dense(torch.from_numpy(picture)[None].float() / 255)
    assert torch.allclose(dense.mean((1, 2)), pooled, atol=1e-4)
    classes = MiniDenseTeacher("classes", 32).encode_dense(torch.from_numpy(picture)[None].float() / 255)
    assert torch.allclose(classes, mini.dense_features(torch.from_numpy(picture)[None].float() / 255, 32))


def test_a_finer_stride_has_more_places():
    assert MiniDenseTeacher("block", 8).encode_dense(IMAGES[:1]).shape[1:3] == (6, 10)


def test_names_and_hashes_tell_teachers_apart():
    names = ["mini", "mini:block:8", "mini:head:16", "mini:classes:16"]
    teachers = [load_dense_teacher(name) for name in names]
    assert len({teacher.hash for teacher in teachers}) == 4
    assert load_dense_teacher("mini:block:16").hash == teachers[0].hash
    for name in ("other", "mini:block", "mini:block:x", "mini:block:²"):
        with pytest.raises(CheckpointError, match="no dense teacher"):
            load_dense_teacher(name)
    for name in ("mini:nothing:16", "mini:block:4"):
        with pytest.raises(DataError, match="layer must be"):
            load_dense_teacher(name)


class Counting:
    """Features are means of quarters; counts the images it sees."""

    name, dim, hash = "counting", 3, "c" * 64

    def __init__(self):
        self.seen = 0

    def encode_dense(self, images):
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images.movedim(-1, 1), 2).movedim(1, -1)


def test_features_are_computed_once_and_kept(tmp_path):
    teacher = Counting()
    first = FeatureCache(teacher, tmp_path).features(list(IMAGES))
    assert teacher.seen == 2
    again = FeatureCache(teacher, tmp_path).features(list(IMAGES))
    assert teacher.seen == 2
    assert torch.equal(first, again)
    assert torch.allclose(first, teacher.encode_dense(IMAGES), atol=1e-3)
    assert torch.equal(FeatureCache(teacher, None).features(list(IMAGES)), first)
    with pytest.raises(DataError, match="differ in size"):
        FeatureCache(Sizes(), None).features([IMAGES[0], IMAGES[1][:40]])


class Sizes(Counting):
    def encode_dense(self, images):
        return images


@pytest.mark.parametrize("value", [7e4, -7e4, float("nan"), float("inf")])
def test_features_that_half_precision_does_not_hold_are_an_error(tmp_path, value):
    class Large(Counting):
        def encode_dense(self, images):
            return super().encode_dense(images).clone().index_fill_(-1, torch.tensor([1]), value)

    for folder in (tmp_path, None):
        with pytest.raises(DataError, match="half precision, which ends at 65,504"):
            FeatureCache(Large(), folder).features([IMAGES[0]])
    assert list(tmp_path.glob("*/*.npy")) == []


def test_damaged_files_are_made_again(tmp_path):
    teacher = Counting()
    first = FeatureCache(teacher, tmp_path).features([IMAGES[0]])
    (path,) = tmp_path.glob("*/*.npy")
    for damage in (b"", path.read_bytes()[:-5]):
        path.write_bytes(damage)
        assert torch.equal(FeatureCache(teacher, tmp_path).features([IMAGES[0]]), first)
    assert teacher.seen == 3


def test_a_cache_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    teacher = Counting()
    first = FeatureCache(teacher, tmp_path).features([IMAGES[0]])

    def refuse(*arguments, **options):
        raise PermissionError("read only")

    monkeypatch.setattr(os, "utime", refuse)
    assert torch.equal(FeatureCache(teacher, tmp_path).features([IMAGES[0]]), first)
    assert teacher.seen == 1


def test_the_cache_stays_within_its_bound_and_drops_what_was_used_longest_ago(tmp_path):
    teacher = Counting()
    images = torch.rand(12, 8, 8, 3, generator=torch.Generator().manual_seed(2))
    size = 2 * 2 * 3 * 2 + 128
    cache = FeatureCache(teacher, tmp_path, limit=5 * size)
    for index, image in enumerate(images):
        cache.features([image])
        for path in cache.folder.glob("*.npy"):
            if path.stat().st_mtime > 1e9:  # not aged yet
                os.utime(path, (index + 1, index + 1))
        assert sum(path.stat().st_size for path in cache.folder.glob("*.npy")) <= 6 * size
    cache.features([images[-1]])
    assert teacher.seen == 12
    cache.features([images[0]])
    assert teacher.seen == 13
    assert FeatureCache(teacher, tmp_path, limit=0).features([images[1]]).shape == (1, 2, 2, 3)
    with pytest.raises(DataError, match="limit"):
        FeatureCache(teacher, tmp_path, limit=-1)
