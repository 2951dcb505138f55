import logging
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import load, read_ply, read_point_cloud, write_ply


def expected(columns):
    """The values a splat's raw columns stand for, computed here in float64."""
    raw = {name: column.astype(np.float64) for name, column in columns.items()}
    quats = np.stack([raw[f"rot_{i}"] for i in range(4)], 1)
    bands = sum(name.startswith("f_rest_") for name in raw) // 3
    sh = [[raw[f"f_dc_{channel}"]] + [raw[f"f_rest_{channel * bands + band}"] for band in range(bands)] for channel in range(3)]
    return {
        "means": np.stack([raw[name] for name in "xyz"], 1),
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "scales": np.exp(np.stack([raw[f"scale_{i}"] for i in range(3)], 1)),
        "opacities": 1 / (1 + np.exp(-raw["opacity"])),
        "sh": np.array(sh).transpose(2, 1, 0),
    }


def assert_holds(gaussians, columns):
    for name, values in expected(columns).items():
        np.testing.assert_allclose(getattr(gaussians, name).numpy(), values, rtol=1e-6, atol=1e-7, err_msg=name)
        assert getattr(gaussians, name).dtype == torch.float32


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
def test_every_encoding_and_degree(tmp_path, splat_rows, write_ply_by_hand, form, kind, degree):
    columns = splat_rows(degree=degree)
    gaussians = read_ply(write_ply_by_hand(tmp_path / "a.ply", columns, kind=kind, form=form))
    assert gaussians.sh_degree == degree
    assert_holds(gaussians, columns)


@pytest.mark.parametrize("form", ["binary_little_endian", "ascii"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_and_comments(tmp_path, splat_rows, write_ply_by_hand, form, line_end):
    comments = ("comment made by hand", "comment", "comment end_header of a comment", "obj_info num_cols 5", "comment größer")
    columns = splat_rows()
    columns["x"].view(np.uint32)[0] = 0x3F800A0A  # a binary body that starts with "\n\n"
    assert_holds(
        read_ply(write_ply_by_hand(tmp_path / "a.ply", columns, form=form, line_end=line_end, comments=comments)), columns
    )


def test_any_order_and_extra_columns_of_any_type(tmp_path, splat_rows, write_ply_by_hand):
    columns = splat_rows(degree=2)
    columns |= {"label": np.array([1, 2, 3, 4, -5]), "confidence": np.arange(5), "exact": np.arange(5.0)}
    names = list(np.random.default_rng(3).permutation(list(columns)))
    kinds = {"label": "int", "confidence": "uchar", "exact": "double"}
    assert_holds(read_ply(write_ply_by_hand(tmp_path / "a.ply", {n: columns[n] for n in names}, kind=kinds)), columns)


@pytest.mark.parametrize("form", ["binary_little_endian", "ascii"])
def test_other_elements_around_the_vertices(tmp_path, splat_rows, write_ply_by_hand, form):
    camera = "element camera 2\nproperty float fov\nproperty uchar id\n"
    face = "element face 1\nproperty list uchar int vertex_indices\n"
    before = b"1.5 2\n\n2.5 3\n" if form == "ascii" else bytes(2 * 5)
    after = b"3 0 1 2\n" if form == "ascii" else b"\3" + bytes(12)
    columns = splat_rows()
    path = write_ply_by_hand(tmp_path / "a.ply", columns, form=form, before=(camera, before), after=(face, after))
    assert_holds(read_ply(path), columns)


def test_lists_before_the_vertices(tmp_path, splat_rows, write_ply_by_hand):
    face = "element face 2\nproperty list uchar int vertex_indices\n"
    columns = splat_rows()
    path = write_ply_by_hand(tmp_path / "a.ply", columns, form="ascii", before=(face, b"3 0 1 2\n4 0 1 2 3\n"))
    assert_holds(read_ply(path), columns)
    path = write_ply_by_hand(tmp_path / "b.ply", columns, before=(face, b"\3" + bytes(12) + b"\4" + bytes(16)))
    with pytest.raises(
        FormatError, match=r"b\.ply: element 'face', whose rows differ in length, comes before 'vertex'; export it"
    ):
        read_ply(path)


def test_many_blocks(tmp_path, monkeypatch, make_gaussians):
    monkeypatch.setattr("splatsense.io._ply_container.BLOCK_BYTES", 1000)
    monkeypatch.setattr("splatsense.io.ply.ROWS_PER_WRITE", 7)
    gaussians = make_gaussians(100, degree=1)
    for ascii in (False, True):
        write_ply(gaussians, tmp_path / "a.ply", ascii=ascii)
        torch.testing.assert_close(read_ply(tmp_path / "a.ply").sh, gaussians.sh, rtol=0, atol=0)


def test_the_written_file_is_laid_out_as_the_3dgs_code_base_does(tmp_path):
    sh = torch.arange(12.0).reshape(1, 4, 3)
    gaussians = Gaussians(
        torch.tensor([[1.0, 2, 3]]), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.tensor([0.5]), sh
    )
    write_ply(gaussians, tmp_path / "a.ply")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{i}" for i in range(9)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 1\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    values = [1, 2, 3, 0, 0, 0, 0, 1, 2, 3, 6, 9, 4, 7, 10, 5, 8, 11, 0, 0, 0, 0, 1, 0, 0, 0]
    assert (tmp_path / "a.ply").read_bytes() == header.encode() + np.array(values, "<f4").tobytes()


unit = st.floats(0, 1, width=32)
finite = st.floats(-(2.0**100), 2.0**100, width=32)
length = st.floats(2.0**-90, 2.0**60, width=32)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(finite, finite, finite, length, length, length, unit, finite), min_size=1, max_size=6),
    turns=st.integers(0, 2**31),
    degree=st.integers(0, 4),
    ascii=st.booleans(),
)
def test_round_trip(tmp_path_factory, rows, turns, degree, ascii):
    values = torch.tensor(rows)
    random = torch.Generator().manual_seed(turns)
    quats = torch.nn.functional.normalize(torch.randn(len(rows), 4, generator=random), dim=1)
    sh = torch.randn(len(rows), (degree + 1) ** 2, 3, generator=random) * values[:, 7:, None]
    gaussians = Gaussians(values[:, :3], quats, values[:, 3:6], values[:, 6], sh)
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_ply(gaussians, path, ascii=ascii)
    back = read_ply(path)
    assert torch.equal(back.means, gaussians.means)
    assert torch.equal(back.sh, gaussians.sh)
    torch.testing.assert_close(back.quats, gaussians.quats, rtol=0, atol=3e-7)
    # One float32 rounding of the raw value: |log s| * 2^-24 relative for scales, |logit o| * 2^-24 for opacities.
    torch.testing.assert_close(back.scales, gaussians.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=3e-6, atol=2e-7)


def test_extreme_values_stay_finite_in_the_file(tmp_path):
    gaussians = Gaussians(
        torch.zeros(2, 3), torch.tensor([[1.0, 0, 0, 0]] * 2), torch.zeros(2, 3), torch.tensor([0.0, 1.0]), torch.zeros(2, 1, 3)
    )
    write_ply(gaussians, tmp_path / "a.ply", ascii=True)
    rows = np.loadtxt((tmp_path / "a.ply").read_text().splitlines()[-2:])
    assert np.isfinite(rows).all()
    back = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(back.opacities, gaussians.opacities)
    assert float(back.scales.max()) < 1e-29


def test_infinite_raw_values_that_mean_something_are_kept(tmp_path, splat_rows, write_ply_by_hand):
    columns = splat_rows(count=2)
    columns["opacity"][:] = [np.inf, -np.inf]
    columns["scale_0"][:] = -np.inf
    gaussians = read_ply(write_ply_by_hand(tmp_path / "a.ply", columns))
    assert gaussians.opacities.tolist() == [1.0, 0.0]
    assert gaussians.scales[:, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("length", [1e-40, 1e-30, 1e-10, 3.0, 1e10, 1e30])
def test_quaternions_of_any_length_become_unit(tmp_path, splat_rows, write_ply_by_hand, length):
    columns = splat_rows(count=2)
    for name in ("rot_0", "rot_1", "rot_2", "rot_3"):
        columns[name][:] = [length, 1.0]
    quats = read_ply(write_ply_by_hand(tmp_path / "a.ply", columns)).quats
    torch.testing.assert_close(quats, torch.full((2, 4), 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("x", np.nan, "position"),
        ("scale_1", np.inf, "scale"),
        ("scale_1", 200, "scale"),
        ("opacity", np.nan, "opacity"),
        ("f_rest_3", -np.inf, "colour"),
        ("rot_2", np.nan, "rotation"),
    ],
)
def test_unusable_rows_are_left_out(tmp_path, caplog, splat_rows, write_ply_by_hand, name, value, fault):
    columns = splat_rows(degree=1)
    columns[name][[1, 3]] = value
    with caplog.at_level(logging.WARNING, "splatsense"):
        gaussians = read_ply(write_ply_by_hand(tmp_path / "a.ply", columns))
    assert_holds(gaussians, {name: column[[0, 2, 4]] for name, column in columns.items()})
    assert f"a.ply: left out 2 of 5 Gaussians with unusable values (2 in {fault})." in caplog.text


def test_quaternions_of_zeros_are_left_out(tmp_path, caplog, splat_rows, write_ply_by_hand):
    columns = splat_rows()
    for name in ("rot_0", "rot_1", "rot_2", "rot_3"):
        columns[name][4] = 0
    assert len(read_ply(write_ply_by_hand(tmp_path / "a.ply", columns))) == 4
    assert "left out 1 of 5" in caplog.text


def test_no_usable_row_is_an_error(tmp_path, splat_rows, write_ply_by_hand):
    columns = splat_rows()
    columns["y"][:] = np.nan
    with pytest.raises(DataError, match=r"a\.ply: every one of its 5 Gaussians has unusable values \(5 in position\)"):
        read_ply(write_ply_by_hand(tmp_path / "a.ply", columns))


def test_values_that_cannot_be_written_are_an_error(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    gaussians.scales[1] = torch.nan
    with pytest.raises(DataError, match="are not finite"):
        write_ply(gaussians, tmp_path / "a.ply")
    with pytest.raises(DataError, match="no Gaussians"):
        write_ply(gaussians[:0], tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize(("kind", "full"), [("uchar", 255), ("ushort", 65535), ("float", 1.0), ("float", 255.0)])
def test_point_cloud(tmp_path, write_ply_by_hand, form, kind, full):
    integer = kind != "float"
    columns = {name: np.arange(3) * 0.5 + index for index, name in enumerate(["x", "y", "z", "nx", "ny", "nz"])}
    columns |= {name: np.array([0, full, full // 5 if integer else full / 5]) for name in ("red", "green", "blue")}
    kinds = dict.fromkeys(("red", "green", "blue"), kind)
    cloud = read_point_cloud(write_ply_by_hand(tmp_path / "a.ply", columns, kind=kinds, form=form))
    np.testing.assert_allclose(cloud.points, np.stack([columns[name] for name in "xyz"], 1))
    np.testing.assert_allclose(cloud.normals, np.stack([columns[name] for name in ("nx", "ny", "nz")], 1))
    np.testing.assert_allclose(cloud.colors, [[0] * 3, [1] * 3, [0.2] * 3], atol=1e-6)


def test_point_cloud_without_colours(tmp_path, write_ply_by_hand):
    columns = {name: np.array([1.0, 2.0]) for name in ("x", "y", "z", "red")}
    cloud = read_point_cloud(write_ply_by_hand(tmp_path / "a.ply", columns, kind="double"))
    assert cloud.colors is None
    assert cloud.normals is None


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_doubles_far_from_the_origin_keep_their_millimetres(tmp_path, caplog, write_ply_by_hand, form):
    away = np.array([512_345.0, 5_432_101.0, 250.0])
    points = np.random.default_rng(0).random((200, 3)).round(3) * [4, 3, 2] + away
    cloud = read_point_cloud(write_ply_by_hand(tmp_path / "a.ply", dict(zip("xyz", points.T, strict=True)), "double", form))
    np.testing.assert_allclose(cloud.points.astype(np.float64) + cloud.origin, points, atol=1e-4)
    assert np.abs(cloud.points).max() < 5
    assert "float32 would round coordinates" in caplog.text
    assert load(tmp_path / "a.ply").means.abs().max() < 5


def test_floats_and_doubles_near_the_origin_stay_where_they_are(tmp_path, write_ply_by_hand):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    columns = dict(zip("xyz", points.T, strict=True))
    for kind, shift in (("double", 0), ("float", 1000)):
        path = write_ply_by_hand(
            tmp_path / "a.ply", {name: column + np.float32(shift) for name, column in columns.items()}, kind
        )
        cloud = read_point_cloud(path)
        assert cloud.origin == (0.0, 0.0, 0.0)
        np.testing.assert_array_equal(cloud.points, points + np.float32(shift))


def test_point_cloud_leaves_out_points_that_are_not_finite(tmp_path, caplog, write_ply_by_hand):
    columns = {name: np.array([1.0, np.nan, 1e300]) for name in "xyz"}
    assert len(read_point_cloud(write_ply_by_hand(tmp_path / "a.ply", columns, kind="double")).points) == 1
    assert "left out 2 of 3 points" in caplog.text
    with pytest.raises(DataError, match="none of its 1 points"):
        read_point_cloud(write_ply_by_hand(tmp_path / "b.ply", {name: np.array([np.inf]) for name in "xyz"}))


@pytest.mark.slow
def test_a_million_gaussians_take_seconds(tmp_path, make_gaussians):
    write_ply(make_gaussians(1_000_000, degree=3), tmp_path / "a.ply")
    start = time.perf_counter()
    assert len(read_ply(tmp_path / "a.ply")) == 1_000_000
    assert time.perf_counter() - start < 10  # 0.4 s on two idle cores of 2023


@pytest.mark.slow
def test_reading_needs_little_more_memory_than_the_result(tmp_path, make_gaussians):
    import tracemalloc  # NumPy reports its allocations to it, PyTorch does not

    write_ply(make_gaussians(500_000, degree=3), tmp_path / "a.ply")
    result = 500_000 * 59 * 4
    tracemalloc.start()
    read_ply(tmp_path / "a.ply")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * result
