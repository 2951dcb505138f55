import tarfile

import pytest
import torch
from safetensors.torch import save

from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.dataset import TripletSet
from splatsense.clip_gs.mapped_shards import FIELDS, map_shard
from splatsense.clip_gs.shards import read_shard, shard_paths
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.errors import FormatError


@pytest.fixture
def shard(boxes, tmp_path):
    build_triplets(boxes, tmp_path / "triplets", TripletConfig(method="surface", gaussians=256, views=3, size=32))
    return shard_paths([tmp_path / "triplets"])[0]


def test_mapping_gives_what_reading_gives(shard):
    mapped, read = list(map_shard(shard)), list(read_shard(shard, with_views=False))
    assert len(mapped) == len(read) == 8
    for (key, gaussians, info), triplet in zip(mapped, read, strict=True):
        assert (key, info) == (triplet.key, triplet.info)
        assert gaussians.count == len(triplet.gaussians)
        for name, column in gaussians.columns().items():
            assert torch.equal(column, getattr(triplet.gaussians, name).half()), name


def test_an_object_with_fewer_gaussians_repeats_them(shard, teacher):
    data = TripletSet([shard.parent], teacher, lambda key, info: True)
    stored = data._gaussians[3]
    short = {name: column[:100].clone() for name, column in stored.columns().items()}
    data._gaussians[3] = type(stored)(torch.frombuffer(bytearray(save(short)), dtype=torch.uint8), 100)
    batch = data.batch(torch.tensor([3, 0]), 256, 1, torch.Generator().manual_seed(0))
    picks = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch.gaussians.means[0], short["means"][picks % 100].float())


def test_damaged_shards_are_told(shard):
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith("safetensors")]
    data = members[2].offset_data
    header = int.from_bytes(content[data : data + 8], "little")
    for damaged in (
        content[: data + 100],
        content[: members[-1].offset_data + 5000],
        content[: data + 8] + b"{" * header + content[data + 8 + header :],
        content[: data + 8] + content[data + 8 : data + 8 + header].replace(b"F16", b"F32") + content[data + 8 + header :],
        b"junk" * 1000,
    ):
        shard.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"triplets-00000.tar: .*build the triplets again"):
            list(map_shard(shard))
    assert set(FIELDS) == {"means", "quats", "scales", "opacities", "rgb"}
