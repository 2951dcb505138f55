import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from splatsense.clip_gs.shards import (
    embed_shard,
    encode_sample,
    fingerprint,
    on_white,
    read_shard,
    shard_paths,
    split_shard,
    write_shard,
)
from splatsense.clip_gs.triplets import TripletConfig, make_triplet
from splatsense.errors import FormatError

SMALL = TripletConfig(method="surface", gaussians=64, views=3, size=32)


@pytest.fixture
def triplets(boxes):
    return [make_triplet(item, SMALL) for item in boxes[:3]]


@pytest.fixture
def shard(triplets, tmp_path):
    path = tmp_path / "triplets-00000.tar"
    write_shard(path, map(encode_sample, triplets))
    return path


def test_samples_round_trip(triplets, shard):
    for written, read in zip(triplets, read_shard(shard), strict=True):
        assert read.key == written.key
        assert read.info == written.info
        assert torch.allclose(read.gaussians.means, written.gaussians.means, atol=1e-3)
        assert torch.allclose(read.gaussians.rgb, written.gaussians.rgb, atol=1e-3)
        assert np.array_equal(read.views[..., 3], written.views[..., 3])
        seen = written.views[..., 3] > 0
        assert np.abs(read.views[seen].astype(int) - written.views[seen]).mean() < 6
        assert torch.allclose(read.cameras().K, written.cameras().K)
        assert torch.allclose(read.cameras().world_to_camera, written.cameras().world_to_camera)
    assert [triplet.views.shape[0] for triplet in read_shard(shard, with_views=False)] == [0, 0, 0]


def test_views_keep_their_order_beyond_a_hundred(triplets, tmp_path):
    """As the cameras have it."""
    views = np.zeros((103, 8, 8, 4), np.uint8)
    views[..., 0], views[..., 3] = 2 * np.arange(103)[:, None, None], 255
    write_shard(tmp_path / "triplets-00000.tar", [encode_sample(replace(triplets[0], views=views))])
    (read,) = read_shard(tmp_path / "triplets-00000.tar")
    assert np.abs(read.views[..., 0].astype(int).mean((1, 2)) - 2 * np.arange(103)).max() < 3


def test_a_shard_is_its_samples_and_an_end_that_other_tools_read(triplets, shard):
    parts = list(split_shard(shard))
    assert [key for key, _ in parts] == [triplet.key for triplet in triplets]
    assert [sample for _, sample in parts] == [encode_sample(triplet) for triplet in triplets]
    assert shard.stat().st_size % tarfile.RECORDSIZE == 0
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
        assert [member.name for member in members[:5]] == [
            "red_cube.gaussians.safetensors", "red_cube.view00.webp", "red_cube.view01.webp", "red_cube.view02.webp",
            "red_cube.json",
        ]  # fmt: skip
        assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_webdataset_package_reads_a_shard(triplets, shard):
    webdataset = pytest.importorskip("webdataset", reason="the package webdataset is not installed")
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("pilrgba"))
    assert [sample["__key__"] for sample in samples] == [triplet.key for triplet in triplets]
    assert samples[0]["json"] == triplets[0].info
    assert samples[1]["view02.webp"].mode == "RGBA"
    assert np.array_equal(np.asarray(samples[1]["view02.webp"])[..., 3], triplets[1].views[2, ..., 3])
    from safetensors.torch import load

    assert load(samples[2]["gaussians.safetensors"])["means"].shape == (64, 3)


def test_a_shard_cut_anywhere_is_an_error_that_names_it(shard):
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    starts = [member.offset for member in members]
    end = members[-1].offset_data + -(-members[-1].size // 512) * 512
    cuts = [0, 100, *starts[1::4], starts[5] + 700, end - 100, end, end + 512]
    for cut in cuts:
        shard.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"triplets-00000\.tar: .*(sample|beginning).*triplets build"):
            list(read_shard(shard))
    shard.write_bytes(whole[: starts[5]])  # exactly between two samples
    with pytest.raises(FormatError, match=r"'red_cube'.*cut short"):
        list(read_shard(shard))
    shard.write_bytes(whole[: starts[7]])  # exactly between two files of a sample
    with pytest.raises(FormatError, match=r"'blue_cube'.*cut short"):
        list(read_shard(shard))


@pytest.mark.parametrize("extension", ["gaussians.safetensors", "view01.webp", "json"])
def test_damage_inside_a_sample_names_it(shard, extension):
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        member = tar.getmember(f"blue_cube.{extension}")
    data[member.offset_data : member.offset_data + 40] = b"\xff" * 40
    shard.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="sample 'blue_cube' is damaged"):
        list(read_shard(shard))


def test_shards_of_earlier_versions_are_read(triplets, tmp_path):
    """Their views are RGB on white, and their info has no cameras."""
    sample = encode_sample(replace(triplets[0], info={"name": "red cube", "captions": ["red cube"]}))
    path = tmp_path / "triplets-00000.tar"
    with tarfile.open(fileobj=io.BytesIO(sample + bytes(1024))) as new, tarfile.open(path, "w") as old:
        for entry in new:
            data = new.extractfile(entry).read()
            if entry.name.endswith("webp"):
                buffer = io.BytesIO()
                on_white(Image.open(io.BytesIO(data))).save(buffer, "WEBP", quality=90)
                data = buffer.getvalue()
            entry.size = len(data)
            old.addfile(entry, io.BytesIO(data))
    (read,) = read_shard(path)
    assert (read.views[..., 3] == 255).all()
    assert min(read.pictures()[0].getpixel((0, 0))) > 250
    with pytest.raises(FormatError, match="red_cube: holds no cameras"):
        read.cameras()


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(FormatError, match="splatsense triplets build"):
        shard_paths([tmp_path])


def test_teacher_embeddings_are_computed_once(shard, teacher):
    first = embed_shard(shard, teacher)
    assert first["images"].shape == (3, 3, teacher.dim)
    assert int(first["caption_counts"].sum()) == len(first["captions"])
    assert teacher.pictures_seen == 9
    assert torch.equal(embed_shard(shard, teacher)["images"], first["images"])
    assert teacher.pictures_seen == 9


def test_embeddings_of_another_shard_or_teacher_are_refused(shard, teacher, triplets):
    embed_shard(shard, teacher)
    write_shard(shard, [encode_sample(triplets[0])])
    with pytest.raises(FormatError, match="another shard_sha256"):
        embed_shard(shard, teacher)
    (cached,) = shard.parent.glob("*.safetensors")
    cached.unlink()
    embed_shard(shard, teacher)
    teacher.hash = teacher.hash[:12] + "0" * 52
    with pytest.raises(FormatError, match="another teacher"):
        embed_shard(shard, teacher)
    cached.write_bytes(b"damaged")
    with pytest.raises(FormatError, match="damaged"):
        embed_shard(shard, teacher)


def test_embeddings_of_captions_that_were_edited_since_are_refused(shard, teacher):
    """The shard keeps its size; a cache without its hash is of an earlier version and written again."""
    before = fingerprint([shard.parent])
    embed_shard(shard, teacher)
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"a photo of", b"a scene of"))
    assert shard.read_bytes() != content
    assert shard.stat().st_size == len(content)
    assert fingerprint([shard.parent]) != before
    with pytest.raises(FormatError, match="another shard_sha256; remove it"):
        embed_shard(shard, teacher)
    (cached,) = shard.parent.glob("*.safetensors")
    stale = load_file(cached)
    save_file(stale, cached, {"teacher": teacher.hash, "shard_bytes": str(len(content))})
    assert not torch.equal(embed_shard(shard, teacher)["captions"], stale["captions"])
    seen = teacher.pictures_seen
    embed_shard(shard, teacher)
    assert teacher.pictures_seen == seen


def test_pooled_features_are_kept_when_the_teacher_has_them(shard, teacher, feature_teacher):
    plain = embed_shard(shard, teacher)
    assert "features" not in plain
    embedded = embed_shard(shard, feature_teacher)  # the file of the same hash lacks them and is written again
    assert embedded["features"].shape == (3, 3, 3)
    assert torch.allclose(embedded["images"], plain["images"], atol=1e-5)
    assert torch.equal(embed_shard(shard, feature_teacher)["features"], embedded["features"])


def test_many_objects_are_embedded_in_parts(boxes, tmp_path, teacher, monkeypatch):
    path = tmp_path / "triplets-00000.tar"
    write_shard(path, (encode_sample(make_triplet(item, SMALL)) for item in boxes))
    whole = embed_shard(path, teacher)
    next(tmp_path.glob("*.safetensors")).unlink()
    monkeypatch.setattr("splatsense.clip_gs.shards.EMBED_TOGETHER", 3)
    parts = embed_shard(path, teacher)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
