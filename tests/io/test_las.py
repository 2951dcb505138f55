import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.io import load, load_point_cloud, read_las

laspy = pytest.importorskip("laspy", reason="laspy writes the files")

UTM = (500_000, 5_200_000, 300)


def write_las(path, count=100, version="1.2", point_format=2, seed=0, center=UTM, depth=16, scale=0.001):
    random = np.random.default_rng(seed)
    header = laspy.LasHeader(version=version, point_format=point_format)
    header.scales, header.offsets = [scale] * 3, np.floor(center)
    las = laspy.LasData(header)
    las.x, las.y, las.z = (random.random((count, 3)) * 40 + center).T
    if "red" in las.point_format.dimension_names:
        las.red, las.green, las.blue = random.integers(0, 1 << depth, (3, count)).astype(np.uint16)
    las.write(path)
    return las


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(
    ("version", "point_format"), [("1.2", 0), ("1.2", 3), ("1.3", 5), ("1.4", 2), ("1.4", 6), ("1.4", 7), ("1.4", 10)]
)
def test_agrees_with_laspy(tmp_path, suffix, version, point_format):
    if suffix == ".laz" and point_format in (5, 10):
        pytest.skip("lazrs does not compress wave packets")
    written = write_las(tmp_path / f"a{suffix}", 500, version, point_format)
    cloud = read_las(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), written.xyz, rtol=0, atol=3e-6)
    assert (cloud.colors is None) == (point_format in (0, 6))
    if cloud.colors is not None:
        np.testing.assert_allclose(cloud.colors * 65535, np.stack([written.red, written.green, written.blue], 1), atol=0.01)


def test_more_points_than_a_block(tmp_path):
    written = write_las(tmp_path / "a.laz", 150_001, scale=0.01)
    cloud = read_las(tmp_path / "a.laz")
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), written.xyz, rtol=0, atol=3e-6)


def test_the_shift_is_said_and_near_clouds_stay(tmp_path, caplog):
    write_las(tmp_path / "a.las")
    cloud = read_las(tmp_path / "a.las")
    assert "moved by (-5000" in caplog.text
    assert np.abs(cloud.points).max() < 41
    assert all(value == round(value) for value in cloud.origin)
    near = write_las(tmp_path / "b.las", center=(10, -20, 0))
    cloud = read_las(tmp_path / "b.las")
    assert cloud.origin == (0, 0, 0)
    np.testing.assert_allclose(cloud.points, near.xyz, atol=3e-6)


def test_colours_of_8_bits_and_none(tmp_path):
    las = write_las(tmp_path / "a.las", depth=8)
    np.testing.assert_allclose(
        read_las(tmp_path / "a.las").colors * 255, np.stack([las.red, las.green, las.blue], 1), atol=1e-4
    )
    write_las(tmp_path / "b.las", depth=0)
    assert load_point_cloud(tmp_path / "b.las").colors is None
    assert len(load(tmp_path / "b.las")) == 100


@settings(max_examples=30)
@given(count=st.integers(1, 40), scale=st.sampled_from([1e-4, 0.01, 0.25]), seed=st.integers(0, 99), far=st.booleans())
def test_round_trip_within_the_scale(tmp_path_factory, count, scale, seed, far):
    path = tmp_path_factory.getbasetemp() / "round.las"
    random = np.random.default_rng(seed)
    center = UTM if far else (0, 0, 0)
    xyz = random.random((count, 3)) * 40 + center
    header = laspy.LasHeader(version="1.2", point_format=0)
    header.scales, header.offsets = [scale] * 3, center
    las = laspy.LasData(header)
    las.x, las.y, las.z = xyz.T
    las.write(path)
    cloud = read_las(path)
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), xyz, rtol=0, atol=scale / 2 + 1e-5)


def patched(path, offset, code, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into(code, data, offset, *values)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "code", "value", "message"),
    [
        (107, "<I", 2**32 - 1, "cut off: the header promises 4294967295 points"),
        (107, "<I", 0, "is empty: it declares 0 points"),
        (105, "<H", 10, "records of 10 bytes, but point format 2 needs 26"),
        (104, "<B", 99, "compressed, but no record says how|point format 35 is not supported"),
        (104, "<B", 11, r"version 1\.2 with point format 11 is not supported"),
        (104, "<B", 0x82, "compressed, but no record says how"),
        (24, "<B", 2, r"version 2\.2"),
        (131, "<d", 0.0, "damaged: scale"),
        (131, "<d", float("nan"), "damaged: scale"),
        (96, "<I", 2**31, "cut off"),
    ],
)
def test_damaged_headers(tmp_path, offset, code, value, message):
    path = tmp_path / "a.las"
    write_las(path)
    patched(path, offset, code, value)
    with pytest.raises(FormatError, match=message):
        load(path)


def test_huge_counts_of_version_1_4(tmp_path):
    write_las(tmp_path / "a.las", version="1.4", point_format=6)
    patched(tmp_path / "a.las", 247, "<Q", 2**63)
    with pytest.raises(FormatError, match="promises 9223372036854775808 points"):
        load(tmp_path / "a.las")


def test_coordinates_beyond_all_numbers(tmp_path):
    write_las(tmp_path / "a.las")
    patched(tmp_path / "a.las", 131, "<3d", 1e300, 1e307, -1e307)
    with pytest.raises(DataError, match="none of its 100 points is usable"):
        load(tmp_path / "a.las")


def test_a_las_file_cut_at_any_byte_is_an_error(tmp_path):
    write_las(tmp_path / "a.las", 3)
    data = (tmp_path / "a.las").read_bytes()
    for size in range(1, len(data)):
        (tmp_path / "a.las").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.las: "):
            load(tmp_path / "a.las")


def test_a_laz_file_cut_or_damaged_is_an_error(tmp_path, loads_or_says_why):
    write_las(tmp_path / "a.laz", 1000)
    data = (tmp_path / "a.laz").read_bytes()
    start = struct.unpack_from("<I", data, 96)[0]
    for size in (1, 100, 226, start - 1, start, start + 7, start + 30, len(data) // 2):
        (tmp_path / "a.laz").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.laz: "):
            load(tmp_path / "a.laz")
    for position in (start, start + 9, start + 40, len(data) - 20):
        damaged = bytearray(data)
        damaged[position : position + 8] = b"\xff" * 8
        (tmp_path / "a.laz").write_bytes(damaged)
        loads_or_says_why(tmp_path / "a.laz")


def test_a_laz_bomb_is_not_decompressed(tmp_path):
    write_las(tmp_path / "a.laz")
    patched(tmp_path / "a.laz", 107, "<I", 2**31)
    with pytest.raises(LimitError, match="claims 2147483648 points of 26 bytes"):
        load(tmp_path / "a.laz")
    patched(tmp_path / "a.laz", 107, "<I", 5000)
    with pytest.raises(FormatError, match=r"decompressing failed after \d+ of 5000 points"):
        load(tmp_path / "a.laz")


def test_records_that_lie_about_their_length(tmp_path):
    write_las(tmp_path / "a.laz")
    patched(tmp_path / "a.laz", 105, "<H", 40)
    with pytest.raises(FormatError, match="compressed points have 26 bytes, but the header says 40"):
        load(tmp_path / "a.laz")
