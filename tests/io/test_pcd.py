import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import FormatError, SplatSenseError
from splatsense.io import load, read_pcd
from splatsense.io._lzf import LzfError, decompress, decompress_reference

ENCODINGS = ("ASCII", "BINARY", "BINARY_COMPRESSED")


def pcd(
    fields="x y z", sizes="4 4 4", types="F F F", counts="1 1 1", points=2, data="ascii", body=b"1 2 3\n4 5 6\n", extra="",
    width=None,
) -> bytes:  # fmt: skip
    lines = ["# .PCD v0.7 - Point Cloud Data file format", "VERSION 0.7", f"FIELDS {fields}", f"SIZE {sizes}", f"TYPE {types}"]
    lines += [f"COUNT {counts}", f"WIDTH {points if width is None else width}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0"]
    return "\n".join([*lines, extra + f"POINTS {points}", f"DATA {data}\n"]).encode() + body


def random_cloud(count: int, seed: int = 0):
    """A cloud of pypcd4, which writes it."""
    PointCloud = pytest.importorskip("pypcd4").PointCloud
    random = np.random.default_rng(seed)
    rgb = PointCloud.encode_rgb(random.integers(0, 256, (count, 3)).astype(np.uint8))
    values = [*random.normal(size=(3, count)).astype(np.float32), rgb.view(np.float32).ravel(),
              *random.normal(size=(3, count)).astype(np.float32), random.integers(0, 9, count).astype(np.uint16)]  # fmt: skip
    names = ("x", "y", "z", "rgb", "normal_x", "normal_y", "normal_z", "ring")
    return PointCloud.from_points(values, names, [np.float32] * 7 + [np.uint16])


def save_cloud(cloud, target, encoding):
    cloud.save(target, getattr(pytest.importorskip("pypcd4").Encoding, encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_agrees_with_pypcd4(tmp_path, encoding):
    cloud = random_cloud(300)
    save_cloud(cloud, tmp_path / "a.pcd", encoding)
    ours = read_pcd(tmp_path / "a.pcd")
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if encoding == "ASCII" else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(ours.points, cloud.numpy(("x", "y", "z")), **tolerance)
    np.testing.assert_allclose(ours.normals, cloud.numpy(("normal_x", "normal_y", "normal_z")), **tolerance)
    if encoding != "ASCII":  # pypcd4 rounds the float that holds the bits
        np.testing.assert_allclose(ours.colors, cloud.decode_rgb(cloud.pc_data["rgb"]) / 255, atol=1e-6)


BLUE = 0xFF3366CC
DENORMAL = struct.unpack("<f", struct.pack("<I", 0x3366CC))[0]


@pytest.mark.parametrize(
    ("size", "kind", "data", "value"),
    [
        (4, "U", "ascii", b"4281558732"), (4, "I", "ascii", b"-13211956"), (4, "F", "ascii", b"3368652"),
        (4, "F", "ascii", repr(DENORMAL).encode()), (4, "U", "binary", struct.pack("<I", BLUE)),
        (4, "F", "binary", struct.pack("<I", BLUE)),
    ],
)  # fmt: skip
def test_packed_colours(tmp_path, size, kind, data, value):
    row = b"1 2 3 " + value + b"\n" if data == "ascii" else struct.pack("<3f", 1, 2, 3) + value
    if kind == "I":
        row = b"1 2 3 " + str(BLUE - (1 << 32)).encode() + b"\n"
    (tmp_path / "a.pcd").write_bytes(pcd("x y z rgb", f"4 4 4 {size}", f"F F F {kind}", "1 1 1 1", 1, data, row))
    np.testing.assert_allclose(read_pcd(tmp_path / "a.pcd").colors, [[0x33 / 255, 0x66 / 255, 0xCC / 255]], atol=1e-6)


def test_separate_colours_padding_and_doubles(tmp_path):
    rows = struct.pack("<3d2B3B7f", 500000.125, 1, 2, 0, 0, 51, 102, 255, *range(7)) * 3
    (tmp_path / "a.pcd").write_bytes(
        pcd("x y z _ r g b _", "8 8 8 1 1 1 1 4", "F F F U U U U F", "1 1 1 2 1 1 1 7", 3, "binary", rows)
    )
    cloud = read_pcd(tmp_path / "a.pcd")
    np.testing.assert_allclose(cloud.colors, [[0.2, 0.4, 1.0]] * 3, atol=1e-6)
    np.testing.assert_array_equal(cloud.points[0].astype(np.float64) + cloud.origin, [500000.125, 1, 2])


def test_version_0_6_without_count_and_points_the_scanner_did_not_see(tmp_path, caplog):
    text = (
        "VERSION .6\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nHEIGHT 2\nDATA ascii\n1 2 3\r\nnan nan nan\n\n4 5 6\n7 8 9"
    )
    (tmp_path / "a.bin").write_text(text)
    assert len(load(tmp_path / "a.bin")) == 3
    assert "left out 1 of 4 points" in caplog.text


BROKEN = [
    (b"VERSION 0.7\nFIELDS x y z\n", 'no PCD header that ends with a "DATA" line'),
    (pcd(data="zipped"), "DATA 'zipped' is not one of"),
    (pcd(fields="x y intensity"), "lacks the fields z; it has x y intensity"),
    (pcd(sizes="4 4"), "list 3, 2, 3 and 3 fields"),
    (pcd(sizes="4 4 3"), "'z' has TYPE F, SIZE 3"),
    (pcd(counts="1 1 0"), "COUNT 0, which is not valid"),
    (pcd(counts="1 1 2", body=b"1 2 3 4\n5 6 7 8\n"), "'z' has 2 values a point"),
    (pcd(fields="x y z x", sizes="4 4 4 4", types="F F F F", counts="1 1 1 1"), "'x' occurs twice"),
    (pcd(points=0), "is empty: it declares 0 points"),
    (pcd(points=3, width=2), "does not say one number of points"),
    (pcd(points=-1), "WIDTH is '-1', not a number of points"),
    (pcd(points=2**31, data="binary"), "cut off: the header promises 2147483648 points"),
    (pcd(points=10**17, data="ascii"), "cut off: the header promises 1000000"),
    (pcd(points=10**17, data="binary_compressed", body=bytes(8)), "damaged: 1000000.* cannot be 0 compressed bytes"),
    (pcd(data="binary_compressed", body=struct.pack("<II", 99, 24)), "cut off: 99 compressed bytes"),
    (pcd(data="binary_compressed", body=struct.pack("<II", 2, 24) + b"\x20\0"), "compressed points are damaged after 0 of 24"),
    (pcd(data="binary_compressed", body=struct.pack("<II", 3, 24) + b"\x05ab"), "compressed points are damaged after 0 of 24"),
    (pcd(body=b"1 2 3\n"), "cut off: the header promises 2 points"),
    (pcd(body=b"1.00000 2.0000 3.0000\n"), "but the file ends after 1"),
    (pcd(body=b"1 2 3\n4 5\n6 7"), r"line 13 is not 3 numbers: '4 5'"),
    (pcd(body=b"1 2 3 4\n4 5 6 7\n"), "rows have 4 values, but FIELDS and COUNT promise 3"),
    (pcd(extra="COLOR 1\n"), "header line 10 is not valid: 'COLOR 1'"),
    (pcd(body=b"nan 2 3\ninf 5 6\n"), "none of its 2 points is usable"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_broken_files(tmp_path, data, message):
    (tmp_path / "a.pcd").write_bytes(data)
    with pytest.raises(SplatSenseError, match=message) as caught:
        load(tmp_path / "a.pcd")
    assert str(caught.value).startswith(f"{tmp_path / 'a.pcd'}: ")


def test_compressed_points_without_their_size(tmp_path):
    for size in range(8):
        (tmp_path / "a.pcd").write_bytes(pcd(data="binary_compressed", body=bytes(size)))
        with pytest.raises(FormatError, match=r"cut off: \d+ compressed bytes should follow byte"):
            read_pcd(tmp_path / "a.pcd")


@pytest.mark.parametrize(("fields", "sizes", "types"), [("rgb", "4", "U"), ("rgb", "4", "F"), ("r g b", "8 8 8", "I I I")])
@pytest.mark.parametrize("value", ["1e300", "-1e300", "inf", "nan"])
def test_colours_in_text_beyond_their_type(tmp_path, fields, sizes, types, value):
    body = f"1 2 3 {' '.join([value] * len(types.split()))}\n4 5 6 {' '.join(['7'] * len(types.split()))}\n".encode()
    counts = " ".join(["1"] * (3 + len(types.split())))
    (tmp_path / "a.pcd").write_bytes(pcd(f"x y z {fields}", f"4 4 4 {sizes}", f"F F F {types}", counts, body=body))
    colors = read_pcd(tmp_path / "a.pcd").colors
    assert colors is not None
    assert ((colors >= 0) & (colors <= 1)).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_cut_at_any_byte_is_an_error(tmp_path, encoding):
    buffer = io.BytesIO()
    save_cloud(random_cloud(4), buffer, encoding)
    data = buffer.getvalue()
    start = data.index(b"DATA")
    for size in range(1, len(data) - (20 if encoding == "ASCII" else 0)):  # text may lose digits of its last number
        (tmp_path / "a.pcd").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.pcd: " if size < start else "cut off|damaged|line|values|DATA"):
            load(tmp_path / "a.pcd")


@settings(max_examples=50)
@given(data=st.binary(max_size=2000), seed=st.integers(0, 3))
def test_lzf_agrees_with_liblzf(data, seed):
    lzf = pytest.importorskip("lzf")
    data = data * (1 + seed * 20)
    packed = lzf.compress(data, len(data) + len(data) // 8 + 64) if data else b""
    if packed:
        assert decompress(packed, len(data)).tobytes() == data
        assert decompress_reference(packed, len(data)).tobytes() == data


@given(data=st.binary(max_size=60), size=st.integers(0, 400))
def test_lzf_of_any_bytes_gives_what_the_reference_gives(data, size):
    results = []
    for function in (decompress, decompress_reference):
        try:
            results.append(function(data, size).tobytes())
        except LzfError as error:
            results.append(str(error))
    assert results[0] == results[1]


@settings(max_examples=60)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), which=st.integers(0, 2))
def test_flipped_bytes(tmp_path_factory, loads_or_says_why, edits, which):
    buffer = io.BytesIO()
    save_cloud(random_cloud(6), buffer, ENCODINGS[which])
    data = bytearray(buffer.getvalue())
    for position, value in edits:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "flipped.pcd"
    path.write_bytes(data)
    loads_or_says_why(path)
