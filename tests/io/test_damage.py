"""Small files of every format, cut off at every byte and with bytes changed at random: they load, or an error of ours names
them. What only one format can suffer is in the tests of that format; `tools/fuzz.py` looks for more."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import FormatError
from splatsense.io import WRITERS, load, save

PLY = {"binary": {}, "big": {"form": "binary_big_endian", "kind": "double"}, "ascii": {"form": "ascii", "line_end": "\r\n"}}
NAMES = [*(f"a{suffix}" for suffix in WRITERS), "plain.spz", "b.ksplat", "cloud.ply", *(f"{form}.ply" for form in PLY)]
LARGE = ("a.sog", "b.ksplat")
"""Mostly codebooks and padding: their own tests cut them where it matters."""


def ksplat() -> bytes:
    """A file of version 0.1 with one section of two Gaussians at level 1."""
    data = bytearray(4096 + 1024) + bytes(4 + 12 + 2 * 24)
    data[1], data[4], data[16], data[20] = 1, 1, 2, 1
    for at, value in ((0, 2), (4, 2), (12, 1), (16, 0x80), (18, 0x40), (20, 12), (36, 1)):
        data[4096 + at] = value
    data[5120] = 2
    data[5120 + 4 + 12 + 13] = data[5120 + 4 + 12 + 24 + 13] = 0x3C  # a quaternion of w = 1
    return bytes(data)


@pytest.fixture(scope="module")
def valid(tmp_path_factory, make_gaussians, splat_rows, write_ply_by_hand):
    """Whole files by name. `plain.spz` is without gzip, whose checksum would hide what the reader makes of damage."""
    folder = tmp_path_factory.mktemp("valid")
    for suffix in WRITERS:
        save(make_gaussians(2, degree=int(suffix in (".compressed.ply", ".spz"))), folder / f"a{suffix}")
    (folder / "plain.spz").write_bytes(gzip.decompress((folder / "a.spz").read_bytes()))
    (folder / "b.ksplat").write_bytes(ksplat())
    for form, options in PLY.items():
        write_ply_by_hand(folder / f"{form}.ply", splat_rows(1), **options)
    cloud = {name: np.arange(4.0) for name in ("x", "y", "z", "red", "green", "blue", "nx", "ny", "nz")}
    write_ply_by_hand(folder / "cloud.ply", cloud)
    for name in NAMES:
        assert len(load(folder / name)) in (1, 2, 4)
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_files_cut_off_at_every_byte(tmp_path, valid, name):
    path = tmp_path / name
    end = valid[name].rindex(b" ") if name == "ascii.ply" else len(valid[name])  # the last number may lose digits
    for size in range(end):
        path.write_bytes(valid[name][:size])
        if name == "a.splat" and size == 32:
            assert len(load(path)) == 1
            continue
        with pytest.raises(FormatError, match=f"{name}: "):
            load(path)


@settings(max_examples=250)
@given(
    name=st.sampled_from(NAMES),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    header=st.booleans(),
)
def test_bytes_changed_at_random(tmp_path_factory, loads_or_says_why, valid, name, edits, header):
    data = bytearray(valid[name])
    used = [at for at, value in enumerate(data) if value or at < 64]
    for at, value in edits:
        data[used[at % (64 if header and len(used) > 64 else len(used))]] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    loads_or_says_why(path)


@settings(max_examples=60)
@given(
    data=st.binary(max_size=200),
    name=st.sampled_from(NAMES),
    start=st.sampled_from([b"", b"NGSP", b"\x1f\x8b\x08", b"\0\1", b"ply\n", b"glTF", b"PK\3\4"]),
)
def test_bytes_of_nothing(tmp_path_factory, loads_or_says_why, data, name, start):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(start + data)
    loads_or_says_why(path)
