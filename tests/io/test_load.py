import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splatsense.errors import FormatError, SplatSenseError
from splatsense.io import WRITERS, load, save


def png() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(b"\0\xff\0\0")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def header(*lines: str, form="binary_little_endian") -> bytes:
    return "\n".join(["ply", f"format {form} 1.0", *lines, "end_header\n"]).encode()


XYZ = ("property float x", "property float y", "property float z")
SPLAT = (
    *XYZ,
    *(f"property float {name}_{i}" for name, n in (("f_dc", 3), ("scale", 3), ("rot", 4)) for i in range(n)),
    "property float opacity",
)
ROW = np.ones(14, "<f4").tobytes()

# name of the file, its bytes, what the error says
BROKEN = [
    ("a.ply", b"", "is empty; copy or export it again"),
    ("a.ply", png(), "is not a 3D file: its first bytes are those of a PNG image"),
    ("a.splat", png(), "is not a 3D file: its first bytes are those of a PNG image"),
    ("a.glb", b"\n<!DOCTYPE html><title>404</title>", "a web page, perhaps the error page of a failed download"),
    ("a.ply", b"<HTML><body>Forbidden", "a web page"),
    ("a.ply", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; fetch the real file with `git lfs pull`"),
    ("a.ply", b"PK\3\4" + bytes(40), "a zip archive; unpack it"),
    ("a.ply", b"\x1f\x8b\x08\0" + bytes(40), "a gzip archive; unpack it"),
    ("a.ply", b"\0\1\2", r"is not a \.ply file: it starts with b'\\x00\\x01\\x02'"),
    ("a.glb", b"gltf", r"is not a \.glb file"),
    ("a.spz", b"\x1f\x8b\x08\0", "cut off: the gzip stream ends after 0 bytes"),
    ("a.spz", png(), "is not a 3D file: its first bytes are those of a PNG image"),
    ("a.sog", b"PK\3\4", "cut off or not a zip archive"),
    ("a.sog", b"no zip", r"is not a \.sog file: it starts with b'no zip'"),
    ("a.npz", b"no zip", r"is not a \.npz file: it starts with b'no zip'"),
    ("a.zip", b"PK\3\4", "is not a 3D file: its first bytes are those of a zip archive; unpack it"),
    ("a.safetensors", b"no header", "cut off, damaged or not a safetensors file"),
    ("meta.json", b"{}", "meta.json: lacks 'means'"),
    ("a.glb", b"glTF" + bytes(8) + b"gaussian_splatting", "is version 0 of .glb"),
    ("a.KSPLAT", b"\0", "1 bytes are less than its header of 4096"),
    ("a.las", b"LASF", "cut off: a LAS header has at least 227 bytes, the file 4"),
    ("a.laz", b"laz", r"is not a \.laz file: it starts with b'laz'"),
    ("a.pcd", b"pcd", r"is not a \.pcd file: it starts with b'pcd'"),
    ("a.e57", b"e57", r"is not a \.e57 file: it starts with b'e57'"),
    ("a.txt", b"<html>", "a web page"),
    ("a.doc", b"hello", r"unknown format \.doc; supported are \.ply, \.splat, \.spz, \.ksplat, \.sog, \.glb, \.gltf, \.npz"),
    ("a", b"hello", r"unknown format \(no extension\); supported are"),
    ("a.splat", bytes(33), "33 bytes are 1 records of 32 bytes and 1 more at byte 32"),
    ("a.ply", b"ply\nformat ascii 1.0\n", 'the header has no "end_header" within its first 21 bytes'),
    ("a.ply", b"ply\nelement vertex 1\nend_header\n", 'the header has no "format" line'),
    ("a.ply", header("element vertex 1", *XYZ, form="binary"), "header line 2 is not valid: 'format binary 1.0'"),
    ("a.ply", header("element vertex -1", *XYZ), "header line 3 is not valid: 'element vertex -1'"),
    ("a.ply", header("element vertex " + "9" * 5000, *XYZ), "header line 3 is not valid: 'element vertex 999"),
    ("a.ply", header("property float x"), "header line 3 is not valid: 'property float x'"),
    ("a.ply", header("element vertex 1", "property half x"), "header line 4 is not valid: 'property half x'"),
    (
        "a.ply",
        header("element vertex 1", *XYZ, "property float x"),
        "line 7 declares the property 'x' of 'vertex' a second time",
    ),
    ("a.ply", header("element vertex 1", "element vertex 1"), "header line 4 is not valid"),
    ("a.ply", header("element vertex 0", *SPLAT), "is empty: it declares 0 vertices"),
    ("a.ply", header("element vertex 0", *XYZ), "is empty: it declares 0 vertices"),
    ("a.ply", header(), r"not a point cloud: its vertices lack x, y, z\. It declares nothing"),
    ("a.ply", header("element tristrips 1", "property float s"), r"lack x, y, z\. It declares tristrips \(s\)"),
    ("a.ply", header("element vertex 1", *SPLAT[:-1]) + ROW, r"lacks opacity\. It seems to be an incomplete Gaussian splat"),
    ("a.ply", header("element vertex 1", *SPLAT[:9], SPLAT[-1]) + ROW, r"lacks rot_0, rot_1, rot_2, rot_3\. It seems to be an"),
    ("a.ply", header("element vertex 1", *SPLAT[:7], *SPLAT[8:]) + ROW, r"lacks scale_1\. It seems to be an incomplete"),
    ("a.ply", header("element vertex 1", *XYZ, *SPLAT[4:]) + ROW, r"lacks f_dc_0\. It seems to be an incomplete"),
    (
        "a.ply",
        header("element chunk 1", "property float min_x", "element vertex 9", "property uint packed_position"),
        "not a compressed PLY: element 'chunk' lacks min_y, min_z, max_x",
    ),
    (
        "a.ply",
        header("element vertex 1", *SPLAT, "property float f_rest_0") + ROW,
        "has 1 f_rest properties; .* 0, 9, 24, 45 or 72",
    ),
    (
        "a.ply",
        header("element vertex 1", *SPLAT, *(f"property float f_rest_{i}" for i in range(1, 10))) + ROW,
        "has 9 f_rest properties, but no f_rest_0",
    ),
    (
        "a.ply",
        header("element vertex 2", *SPLAT) + ROW,
        r"cut off: the header promises 2 rows of 'vertex', which end at byte (\d+), but the file has (\d+) bytes",
    ),
    ("a.ply", header("element vertex 1099511627776", *SPLAT) + ROW, r"cut off: .* 1099511627776 rows .* at byte 61572651\d+"),
    ("a.ply", header("element vertex 1099511627776", *SPLAT, form="ascii") + b"1 2", "cut off: .* at byte 3078632.* or later"),
    ("a.ply", header("element vertex 999999999999999999", *XYZ) + ROW, "cut off: the header promises 999999999999999999 rows"),
    ("a.ply", header("element vertex 2", *XYZ, form="ascii") + b"1 2 3\n     \n   \n", "but the file ends after 1. Copy"),
    (
        "a.ply",
        header("element vertex 2", *XYZ, form="ascii") + b"1 2 3\n4 5\n7 8 9",
        "row 0 of 'vertex' or a later one is damaged",
    ),
    ("a.ply", header("element vertex 1", *XYZ, form="ascii") + b"1 2 three\n", "could not convert string 'three'"),
    ("a.ply", header("element vertex 1", *SPLAT, "property list uchar int neighbours") + ROW * 2, "has list properties"),
]


@pytest.mark.parametrize(("name", "data", "message"), BROKEN, ids=[f"{i}-{row[0]}" for i, row in enumerate(BROKEN)])
def test_broken_files(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_the_byte_counts_of_a_cut_off_file_are_right(tmp_path, make_gaussians):
    save(make_gaussians(10), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data[:-5])
    with pytest.raises(FormatError, match=rf"end at byte {len(data)}, but the file has {len(data) - 5} bytes"):
        load(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("name", "message"), [("absent.ply", "does not exist"), (".", "is a folder"), ("a\0b.ply", "not a file name")]
)
def test_files_that_cannot_be_opened(tmp_path, name, message):
    with pytest.raises(FormatError, match=message):
        load(tmp_path / name)


WRITTEN = [f"a{suffix}" for suffix in WRITERS]


@pytest.mark.parametrize("name", [*WRITTEN, "A.PLY", "A.SOG"])
def test_save_and_load(tmp_path, make_gaussians, name):
    gaussians = make_gaussians(20)
    save(gaussians, str(tmp_path / name))
    back = load(str(tmp_path / name)).means
    torch.testing.assert_close(back[back[:, 0].argsort()], gaussians.means[gaussians.means[:, 0].argsort()], rtol=0, atol=2e-3)


def test_content_goes_before_the_extension(tmp_path, make_gaussians):
    save(make_gaussians(20, degree=1), tmp_path / "a.ply")
    for name in ("b.splat", "b.obj", "b.txt", "b"):
        (tmp_path / name).write_bytes((tmp_path / "a.ply").read_bytes())
        assert load(tmp_path / name).sh_degree == 1


def test_a_splat_may_also_have_faces(tmp_path, splat_rows, write_ply_by_hand):
    face = ("element face 1\nproperty list uchar int vertex_indices\n", b"\3" + bytes(12))
    assert len(load(write_ply_by_hand(tmp_path / "a.ply", splat_rows(), after=face))) == 5


def test_a_point_cloud_becomes_gaussians(tmp_path, write_ply_by_hand):
    columns = {name: np.arange(4.0) for name in ("x", "y", "z", "opacity")}
    columns |= {name: np.full(4, 51) for name in ("red", "green", "blue")}
    gaussians = load(write_ply_by_hand(tmp_path / "a.ply", columns, kind=dict.fromkeys(("red", "green", "blue"), "uchar")))
    torch.testing.assert_close(gaussians.rgb, torch.full((4, 3), 0.2))
    assert len(gaussians) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.obj", r"cannot write \.obj; use one of \.compressed\.ply, \.ply, \.splat, \.spz"), ("a", "without extension")],
)
def test_only_splats_are_written(tmp_path, make_gaussians, name, message):
    with pytest.raises(FormatError, match=message):
        save(make_gaussians(1), tmp_path / name)


def test_saving_into_a_missing_folder(tmp_path, make_gaussians):
    with pytest.raises(FormatError, match="check that its folder exists"):
        save(make_gaussians(1), tmp_path / "absent" / "a.ply")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_failed_save_keeps_the_old_file(tmp_path, make_gaussians, name):
    save(make_gaussians(3), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    bad = make_gaussians(3)
    bad.means[0, 0] = torch.nan
    with pytest.raises(SplatSenseError):
        save(bad, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert os.listdir(tmp_path) == [name]


@given(lines=st.lists(st.text(max_size=30), max_size=6), body=st.binary(max_size=64))
def test_invented_headers(tmp_path_factory, loads_or_says_why, lines, body):
    data = "\n".join(["ply", "format ascii 1.0", "element vertex 2", *XYZ, *lines, "end_header\n"]).encode()
    path = tmp_path_factory.getbasetemp() / "invented.ply"
    path.write_bytes(data + body)
    loads_or_says_why(path)
