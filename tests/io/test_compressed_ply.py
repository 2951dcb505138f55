import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import load, read_compressed_ply, read_ply, save, write_compressed_ply
from splatsense.spherical_harmonics import SH_C0

RANGES = [f"{end}_{kind}{axis}" for kind in ("", "scale_") for end in ("min", "max") for axis in "xyz"]
COLORS = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
PACKED = [f"packed_{name}" for name in ("position", "rotation", "scale", "color")]


def by_hand(chunks, words, harmonics=(), colors=True, order="<", form=None, after=(), tail=b""):
    """A compressed PLY of `chunks` (ranges), `words` (four a Gaussian) and `harmonics` (bytes of each Gaussian)."""
    ranges = RANGES + (COLORS if colors else [])
    lines = ["ply", f"format {form or {'<': 'binary_little_endian', '>': 'binary_big_endian'}[order]} 1.0"]
    lines += [f"element chunk {len(chunks)}", *(f"property float {name}" for name in ranges)]
    lines += [f"element vertex {len(words)}", *(f"property uint {name}" for name in PACKED)]
    if harmonics:
        lines += [
            f"element sh {len(harmonics)}",
            *(f"property uchar f_rest_{index}" for index in range(len(harmonics[0]))),
        ]
    body = b"".join(struct.pack(f"{order}{len(ranges)}f", *chunk) for chunk in chunks)
    body += b"".join(struct.pack(f"{order}4I", *row) for row in words) + b"".join(map(bytes, harmonics))
    return "\n".join([*lines, *after, "end_header\n"]).encode() + body + tail


POSITION, SCALE = [-1, -2, -3, 1, 2, 5], [-4, -4, -4, 0, 0, 0]
COLOR = [0, 0, 0, 2, 1, 1]
FIRST = (
    0x7FF << 21 | 0 << 11 | 0x7FF,  # x high, y low, z high
    3 << 30 | 512 << 20 | 512 << 10 | 512,  # the largest component is z; 512 is 0.5 / 1023 of a step beyond zero
    0 << 21 | 0x3FF << 11 | 0,
    255 << 24 | 0 << 16 | 51 << 8 | 204,
)


@pytest.mark.parametrize("order", "<>")
def test_a_file_written_by_hand(tmp_path, order):
    harmonics = [[0, 255, 128, 127, 1, 254, 64, 192, 96]]
    (tmp_path / "a.ply").write_bytes(by_hand([POSITION + SCALE + COLOR], [FIRST], harmonics, order=order))
    gaussians = load(tmp_path / "a.ply")
    assert gaussians.means.tolist() == [[1, -2, 5]]
    torch.testing.assert_close(gaussians.scales, torch.tensor([[-4.0, 0, -4]]).exp())
    torch.testing.assert_close(gaussians.quats, torch.tensor([[0.000691, 0.000691, 0.000691, 1.0]]), atol=2e-6, rtol=0)
    torch.testing.assert_close(gaussians.sh[:, 0] * SH_C0 + 0.5, torch.tensor([[2.0, 0, 0.2]]))
    torch.testing.assert_close(gaussians.opacities, torch.tensor([0.8]))
    # f_rest_* has the three coefficients of red, then of green, then of blue.
    middles = {0: -4, 255: 4} | {code: (code + 0.5) / 32 - 4 for code in range(1, 255)}
    assert gaussians.sh[0, 1:].T.flatten().tolist() == [middles[code] for code in harmonics[0]]


def test_a_file_without_colour_ranges(tmp_path):
    (tmp_path / "a.ply").write_bytes(by_hand([POSITION + SCALE], [FIRST], colors=False))
    torch.testing.assert_close(load(tmp_path / "a.ply").rgb, torch.tensor([[1.0, 0, 0.2]]))


@pytest.mark.parametrize("largest", range(4))
def test_the_largest_component_of_a_rotation(tmp_path, largest):
    low, high = 0, 1023  # -1/sqrt(2) and 1/sqrt(2)
    word = largest << 30 | low << 20 | high << 10 | 512
    (tmp_path / "a.ply").write_bytes(by_hand([POSITION + SCALE], [(0, word, 0, 0)], colors=False))
    half = 0.5**0.5
    expected = [-half, half, 0.5 / 1023 * 2**0.5]
    expected.insert(largest, 0)
    torch.testing.assert_close(load(tmp_path / "a.ply").quats, torch.tensor([expected]), atol=1e-6, rtol=0)


def tolerance(values, steps):
    """(N, C) half a step of each Gaussian's chunk, and what float32 adds to it."""
    chunks = [values[start : start + 256] for start in range(0, len(values), 256)]
    half = [(chunk.amax(0) - chunk.amin(0)) / torch.tensor(steps) / 2 for chunk in chunks]
    return torch.cat([h.expand_as(chunk) for h, chunk in zip(half, chunks, strict=True)]) + values.abs().max() * 3e-7 + 1e-7


@settings(max_examples=30)
@given(
    count=st.sampled_from([1, 2, 255, 256, 257, 600]),
    degree=st.integers(0, 3),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_round_trip_within_the_stated_precision(tmp_path_factory, make_gaussians, count, degree, size, seed):
    path = tmp_path_factory.mktemp("compressed") / "a.compressed.ply"
    gaussians = make_gaussians(count, degree=degree, seed=seed).transform(scale=size)
    write_compressed_ply(gaussians, path, keep_order=True)
    back = load(path)
    assert ((back.means - gaussians.means).abs() <= tolerance(gaussians.means, [2047.0, 1023, 2047])).all()
    log_scales = gaussians.scales.log()
    assert ((back.scales.log() - log_scales).abs() <= tolerance(log_scales, [2047.0, 1023, 2047]) + 1e-6).all()
    rgb = gaussians.sh[:, 0] * SH_C0 + 0.5
    assert ((back.sh[:, 0] * SH_C0 + 0.5 - rgb).abs() <= tolerance(rgb, [255.0, 255, 255]) + 1e-6).all()
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    sign = (back.quats * gaussians.quats).sum(1, keepdim=True).sign()
    torch.testing.assert_close(back.quats, gaussians.quats * sign, rtol=0, atol=0.0022)
    expected = gaussians.sh[:, 1:].clamp(-4, 4)
    half = torch.where(expected.abs() >= 4 - 1 / 32, 1 / 32, 1 / 64) + 1e-6
    assert ((back.sh[:, 1:] - expected).abs() <= half).all()


def test_writing_again_keeps_the_values(tmp_path, make_gaussians):
    write_compressed_ply(make_gaussians(600, degree=1), tmp_path / "a.ply")
    write_compressed_ply(read_compressed_ply(tmp_path / "a.ply"), tmp_path / "b.ply", keep_order=True)
    a, b = load(tmp_path / "a.ply"), load(tmp_path / "b.ply")
    torch.testing.assert_close(a.means, b.means, rtol=0, atol=1e-6)
    assert torch.equal(a.sh[:, 1:], b.sh[:, 1:])


def test_a_curve_through_space_makes_positions_finer(tmp_path, make_gaussians):
    gaussians = make_gaussians(5000)
    write_compressed_ply(gaussians, tmp_path / "a.ply", keep_order=True)
    save(gaussians, tmp_path / "b.compressed.ply")
    kept, moved = load(tmp_path / "a.ply").means, load(tmp_path / "b.compressed.ply").means
    distances, order = torch.cdist(moved, gaussians.means).min(1)
    assert sorted(order.tolist()) == list(range(5000))
    assert distances.mean() < (kept - gaussians.means).norm(dim=1).mean() / 2


def test_values_that_no_range_holds(tmp_path):
    unit = torch.tensor([[1.0, 0, 0, 0]]).expand(3, 4)
    scales = torch.tensor([[0.0, 1, 1], [1, 1e30, 1], [1, 1, 1]])
    gaussians = Gaussians(torch.ones(3, 3), unit, scales, torch.tensor([0.0, 1, 1]), torch.full((3, 4, 3), 9.0))
    write_compressed_ply(gaussians, tmp_path / "a.ply", keep_order=True)
    back = load(tmp_path / "a.ply")
    assert torch.equal(back.means, gaussians.means)
    torch.testing.assert_close(back.scales[:2].log().diagonal(), torch.tensor([-20.0, 20.0]))
    assert back.opacities.tolist() == [0, 1, 1]
    assert back.sh[:, 1:].unique().tolist() == [4]


def test_bands_above_degree_three_are_left_out(tmp_path, caplog, make_gaussians):
    write_compressed_ply(make_gaussians(3, degree=4), tmp_path / "a.ply")
    assert "hold SH up to degree 3" in caplog.text
    assert load(tmp_path / "a.ply").sh_degree == 3


def test_ranges_that_are_not_finite_cost_their_gaussians(tmp_path, caplog):
    bad = [np.nan, *POSITION[1:], *SCALE[:3], np.inf, 0, 0]
    words = [FIRST] * 256 + [(0, 0, 0, 0)]
    (tmp_path / "a.ply").write_bytes(by_hand([bad, POSITION + SCALE], words, colors=False))
    assert load(tmp_path / "a.ply").means.tolist() == [[-1, -2, -3]]
    assert "left out 256 of 257" in caplog.text
    (tmp_path / "a.ply").write_bytes(by_hand([bad], [FIRST], colors=False))
    with pytest.raises(DataError, match="every one of its 1 Gaussians"):
        load(tmp_path / "a.ply")


GOOD = [POSITION + SCALE + COLOR], [FIRST]
BROKEN = {
    "ascii": (by_hand(*GOOD, form="ascii"), "must be binary"),
    "no Gaussians": (by_hand([], []), "is empty: it declares 0 vertices"),
    "too few chunks": (by_hand(GOOD[0], [FIRST] * 257), "257 Gaussians need 2 chunks of 256, but it declares 1"),
    "too many chunks": (by_hand(GOOD[0] * 2, [FIRST]), "1 Gaussians need 1 chunks of 256, but it declares 2"),
    "trailing bytes": (by_hand(*GOOD, tail=b"\0"), r"damaged: the header promises rows that end at byte \d+, but"),
    "wrong type": (
        by_hand(*GOOD).replace(b"uint packed_scale", b"int packed_scale"),
        "'vertex' lacks packed_scale of type uint",
    ),
    "missing range": (by_hand(*GOOD).replace(b"min_z", b"min_w"), "'chunk' lacks min_z of type float"),
    "missing colour": (by_hand(*GOOD).replace(b"max_g", b"max_h"), "'chunk' lacks max_g of type float"),
    "missing word": (by_hand(*GOOD).replace(b"packed_position", b"packed_places"), "'vertex' lacks packed_position"),
    "no chunks": (by_hand(*GOOD).replace(b"element chunk", b"element chunc"), "'chunk' lacks min_x, min_y"),
    "SH columns": (by_hand(*GOOD, [[0] * 8]), "9, 24 or 45 uchar properties"),
    "SH names": (by_hand(*GOOD, [[0] * 9]).replace(b"f_rest_8", b"f_rest_9"), "9, 24 or 45 uchar properties"),
    "SH rows": (by_hand(*GOOD, [[0] * 9] * 2), "SH of 2 Gaussians for 1"),
    "lists": (by_hand(*GOOD, after=("element x 0", "property list uchar int y")), "elements x have list properties"),
    "2^31": (by_hand(*GOOD).replace(b"vertex 1\n", b"vertex 2147483648\n"), "need 8388608 chunks"),
    "2^63": (by_hand(*GOOD).replace(b"vertex 1\n", b"vertex 9223372036854775808\n"), "header line .* is not valid"),
    "negative": (by_hand(*GOOD).replace(b"vertex 1\n", b"vertex -1\n"), "header line .* is not valid"),
    "huge": (
        by_hand(*GOOD).replace(b"vertex 1\n", b"vertex 999999999999\n").replace(b"chunk 1\n", b"chunk 3906250000\n"),
        r"cut off: the header promises rows that end at byte 1\d{13}, but the file has",
    ),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_files(tmp_path, data, message):
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(FormatError, match=rf"a\.ply: .*{message}"):
        load(tmp_path / "a.ply")


def test_other_readers_say_what_it_is(tmp_path):
    (tmp_path / "a.ply").write_bytes(by_hand(*GOOD))
    with pytest.raises(FormatError, match="a compressed PLY as SuperSplat writes it; use load or read_compressed_ply"):
        read_ply(tmp_path / "a.ply")


def test_nothing_is_written_that_cannot_be_read(tmp_path, make_gaussians):
    bad = make_gaussians(3)
    bad.means[1] = torch.inf
    bad.quats[2] = 0
    with pytest.raises(
        DataError, match="2 Gaussians have values that are not finite, a quaternion of zeros, a negative scale or"
    ):
        write_compressed_ply(bad, tmp_path / "a.ply")
    with pytest.raises(DataError, match="no Gaussians"):
        write_compressed_ply(bad[:0], tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


def test_a_range_beyond_float32(tmp_path):
    gaussians = Gaussians(
        torch.tensor([[3e38, 0, 0], [-3e38, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]] * 2), torch.ones(2, 3), torch.ones(2),
        torch.zeros(2, 1, 3),
    )  # fmt: skip
    write_compressed_ply(gaussians, tmp_path / "a.ply", keep_order=True)
    assert torch.equal(load(tmp_path / "a.ply").means, gaussians.means)
