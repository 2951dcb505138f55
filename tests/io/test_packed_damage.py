"""Files of the packed formats with bytes changed at random, and the memory that reading takes."""

import gzip
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import FormatError, SplatSenseError
from splatsense.io import load, save
from splatsense.io._decompression import gzip_bound, zstd_bound

KINDS = ("a.compressed.ply", "a.spz", "plain.spz", "b.ksplat")


@pytest.fixture(scope="module")
def valid(tmp_path_factory, make_gaussians):
    """Small whole files by name. `plain.spz` is without gzip, whose checksum would hide what the reader makes of damage."""
    folder = tmp_path_factory.mktemp("valid")
    for name in KINDS[:2]:
        save(make_gaussians(5, degree=1), folder / name)
    (folder / "plain.spz").write_bytes(gzip.decompress((folder / "a.spz").read_bytes()))
    data = bytearray(4096 + 1024) + bytes(12 + 12 + 2 * 24)
    data[1], data[4], data[16], data[20] = 1, 1, 2, 1  # version 0.1; one section, two Gaussians, level 1
    for at, value in ((0, 2), (4, 2), (12, 1), (16, 0x80), (18, 0x40), (20, 12), (36, 1)):
        data[4096 + at] = value
    data[5120] = 2
    data[5120 + 4 + 12 + 13] = data[5120 + 4 + 12 + 24 + 13] = 0x3C  # a quaternion of w = 1
    (folder / "b.ksplat").write_bytes(data[: 5120 + 4 + 12 + 48])
    assert len(load(folder / "b.ksplat")) == 2
    return {name: (folder / name).read_bytes() for name in KINDS}


@settings(max_examples=200)
@given(
    name=st.sampled_from(KINDS),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([0, 1, 2, 127, 128, 255])), min_size=1, max_size=4),
    header=st.booleans(),
)
def test_bytes_changed_at_random(tmp_path_factory, valid, name, edits, header):
    data = bytearray(valid[name])
    used = [at for at, value in enumerate(data) if value or at < 64 or at > 5000]
    for at, value in edits:
        data[used[at % (64 if header else len(used))]] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        gaussians = load(path)
    except SplatSenseError as error:
        if not str(error).startswith(f"{path}: "):
            raise
    else:
        assert torch.isfinite(gaussians.means).all()


@given(
    data=st.binary(max_size=200), name=st.sampled_from(KINDS), start=st.sampled_from([b"", b"NGSP", b"\x1f\x8b\x08", b"\0\1"])
)
def test_bytes_of_nothing(tmp_path_factory, data, name, start):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(start + data)
    with pytest.raises(FormatError):
        load(path)


@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
def test_bounds_of_expansion(size):
    """The best that the encoders themselves reach stays within what the readers take for possible."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    assert gzip_bound(len(gzip.compress(bytes(size)))) >= size
    assert zstd_bound(len(zstd.compress(bytes(size), 19))) >= size


MEASURE = """
import resource, sys
import torch
from splatsense.io import load
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
load(sys.argv[1])
before = peak()
load(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "raw"), [(0, 19), (3, 64)])
@pytest.mark.parametrize("name", ["a.spz", "a.compressed.ply"])
def test_memory_stays_within_the_stated_multiple(tmp_path, make_gaussians, name, degree, raw):
    count = 1_000_000 if degree == 0 else 400_000
    save(make_gaussians(10, degree), tmp_path / f"small.{name}")
    save(make_gaussians(count, degree), tmp_path / name)
    command = [sys.executable, "-c", MEASURE, tmp_path / f"small.{name}", tmp_path / name]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 8 * count * raw + 20_000_000
