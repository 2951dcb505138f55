import json
from functools import partial

import numpy as np
import pytest
import torch

from splatsense.clip_gs.captions import captions, clean_name, fill_template
from splatsense.clip_gs.shards import embed_shard, read_shard, shard_paths
from splatsense.clip_gs.triplets import TripletConfig, build_triplets, make_triplet
from splatsense.corpora import CorpusObject
from splatsense.errors import DataError, FormatError

SMALL = TripletConfig(gaussians=64, views=3, size=32, shard_size=3)


def broken(key: str) -> CorpusObject:
    def fail():
        raise DataError(f"{key}: holds no faces.")

    return CorpusObject(key, key, fail)


def test_views_show_the_object_and_fill_the_picture(boxes):
    triplet = make_triplet(boxes[0], TripletConfig(gaussians=64, views=4, size=64))
    assert triplet.views.shape == (4, 64, 64, 3)
    red = (triplet.views[..., 0] > 1.5 * triplet.views[..., 1].astype(float)) & (triplet.views[..., 0] > 60)
    assert 0.2 < red.mean() < 0.8
    assert (triplet.views[:, 0, 0] == 255).all()


def test_shards_round_trip_and_list_failures(boxes, tmp_path):
    corpus = [*boxes[:2], broken("empty_model"), *boxes[2:5]]
    failures = build_triplets(corpus, tmp_path, SMALL)
    assert failures == {"empty_model": "empty_model: holds no faces."}
    assert json.loads((tmp_path / "failures.json").read_text()) == failures
    paths = shard_paths([tmp_path])
    assert [path.name for path in paths] == ["triplets-00000.tar", "triplets-00001.tar"]
    read = [triplet for path in paths for triplet in read_shard(path)]
    assert [triplet.key for triplet in read] == [item.key for item in boxes[:5]]
    made = make_triplet(boxes[0], SMALL)
    assert torch.allclose(read[0].gaussians.means, made.gaussians.means, atol=2e-3)
    assert np.abs(read[0].views.astype(int) - made.views).mean() < 6
    assert read[0].info["captions"][0] == clean_name(boxes[0].name)


def test_a_rerun_makes_only_what_is_missing(boxes, tmp_path):
    calls = []

    def counted(item):
        calls.append(item.key)
        return item.load_mesh()

    corpus = [CorpusObject(item.key, item.name, partial(counted, item)) for item in boxes]
    build_triplets(corpus, tmp_path, SMALL)
    first = {path.name: path.read_bytes() for path in shard_paths([tmp_path])}
    (tmp_path / "triplets-00001.tar").unlink()
    calls.clear()
    build_triplets(corpus, tmp_path, SMALL)
    assert calls == [item.key for item in boxes[3:6]]
    assert {path.name: path.read_bytes() for path in shard_paths([tmp_path])} == first


def test_an_interrupted_build_leaves_no_partial_shard(boxes, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_triplets([*boxes[:4], CorpusObject("late", "late", interrupt)], tmp_path, SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "failures.json", "triplets-00000.tar"]


def test_other_settings_do_not_mix(boxes, tmp_path):
    build_triplets(boxes[:2], tmp_path, SMALL)
    with pytest.raises(FormatError, match="other settings"):
        build_triplets(boxes[:2], tmp_path, TripletConfig(gaussians=32))


def test_damaged_and_missing_shards_are_named(boxes, tmp_path):
    with pytest.raises(FormatError, match="splatsense triplets"):
        shard_paths([tmp_path])
    build_triplets(boxes[:3], tmp_path, SMALL)
    path = tmp_path / "triplets-00000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(FormatError, match=r"triplets-00000\.tar: damaged"):
        list(read_shard(path))


def test_teacher_embeddings_are_computed_once(boxes, tmp_path, teacher):
    build_triplets(boxes[:3], tmp_path, SMALL)
    path = shard_paths([tmp_path])[0]
    first = embed_shard(path, teacher)
    assert first["images"].shape == (3, 3, teacher.dim)
    assert int(first["caption_counts"].sum()) == len(first["captions"])
    assert teacher.pictures_seen == 9
    assert torch.equal(embed_shard(path, teacher)["images"], first["images"])
    assert teacher.pictures_seen == 9


def test_captions_use_name_tags_and_category():
    item = CorpusObject("k", "Bed 140x190 (oak)", lambda: None, tags=("Double",), category="Bedroom")
    found = captions(item)
    assert found[0] == "bed"
    assert "a 3D model of a double" in found
    assert "a bed, bedroom" in found
    assert len(found) == len(set(found))
    assert clean_name("12 cm") == "object"
    assert fill_template("{article} {name}", "oven") == "an oven"


def test_pooled_features_are_kept_when_the_teacher_has_them(boxes, tmp_path, teacher, feature_teacher):
    build_triplets(boxes[:3], tmp_path, SMALL)
    (path,) = shard_paths([tmp_path])
    plain = embed_shard(path, teacher)
    assert "features" not in plain
    embedded = embed_shard(path, feature_teacher)  # the file of the same hash lacks them and is written again
    assert embedded["features"].shape == (3, 3, 3)
    assert torch.allclose(embedded["images"], plain["images"], atol=1e-5)
    assert torch.equal(embed_shard(path, feature_teacher)["features"], embedded["features"])
