import logging
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.io import read_splat, write_splat


def record(mean=(1, 2, 3), scale=(0.1, 0.2, 0.3), rgba=(255, 0, 51, 102), quat=(255, 128, 128, 128)):
    return struct.pack("<6f8B", *mean, *scale, *rgba, *quat)


def test_a_record_written_by_hand(tmp_path):
    (tmp_path / "a.splat").write_bytes(record() + record(quat=(128, 64, 192, 128)))
    gaussians = read_splat(tmp_path / "a.splat")
    assert gaussians.means.tolist() == [[1, 2, 3]] * 2
    np.testing.assert_allclose(gaussians.scales, [[0.1, 0.2, 0.3]] * 2, rtol=1e-7)
    np.testing.assert_allclose(gaussians.rgb, [[1, 0, 0.2]] * 2, atol=1e-6)
    np.testing.assert_allclose(gaussians.opacities, [0.4] * 2, rtol=1e-6)
    np.testing.assert_allclose(gaussians.quats, [[1, 0, 0, 0], [0, -(0.5**0.5), 0.5**0.5, 0]], atol=1e-6)
    assert gaussians.sh_degree == 0


def test_writing_gives_the_same_bytes(tmp_path):
    data = record() + record(quat=(128, 0, 128, 128), rgba=(1, 2, 3, 0))
    (tmp_path / "a.splat").write_bytes(data)
    write_splat(read_splat(tmp_path / "a.splat"), tmp_path / "b.splat")
    assert (tmp_path / "b.splat").read_bytes() == data


@settings(max_examples=30)
@given(count=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_round_trip_within_quantisation(tmp_path_factory, make_gaussians, count, seed):
    path = tmp_path_factory.mktemp("splat") / "a.splat"
    gaussians = make_gaussians(count, seed=seed)
    write_splat(gaussians, path)
    back = read_splat(path)
    assert torch.equal(back.means, gaussians.means)
    assert torch.equal(back.scales, gaussians.scales)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(back.rgb, gaussians.rgb, rtol=0, atol=0.5 / 255 + 1e-6)
    # +1 is stored as 127/128; half a step per component then turns a matrix by less than 0.03.
    torch.testing.assert_close(quaternion_to_matrix(back.quats), quaternion_to_matrix(gaussians.quats), rtol=0, atol=0.03)


def test_loss_of_view_dependent_colour_is_said(tmp_path, caplog, make_gaussians):
    write_splat(make_gaussians(3, degree=1), tmp_path / "a.splat")
    assert "no view-dependent colour" in caplog.text
    assert read_splat(tmp_path / "a.splat").sh_degree == 0


def test_unusable_records_are_left_out(tmp_path, caplog):
    bad = [record(mean=(np.nan, 0, 0)), record(scale=(-1, 1, 1)), record(quat=(128,) * 4), record(scale=(np.inf, 1, 1))]
    (tmp_path / "a.splat").write_bytes(b"".join([record(), *bad]))
    with caplog.at_level(logging.WARNING, "splatsense"):
        assert len(read_splat(tmp_path / "a.splat")) == 1
    assert "left out 4 of 5 Gaussians with unusable values (1 in position, 1 in rotation, 2 in scale)." in caplog.text


def test_no_usable_record_is_an_error(tmp_path):
    (tmp_path / "a.splat").write_bytes(record(mean=(np.nan, 0, 0)))
    with pytest.raises(DataError, match="every one of its 1 Gaussians"):
        read_splat(tmp_path / "a.splat")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (record()[:-1], r"31 bytes are 0 records of 32 bytes and 31 more at byte 0\. Copy or export it again"),
        (record() * 3 + b"ab", r"98 bytes are 3 records of 32 bytes and 2 more at byte 96"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    (tmp_path / "a.splat").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.splat: .*" + message):
        read_splat(tmp_path / "a.splat")


def test_values_that_cannot_be_written_are_an_error(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    gaussians.means[1] = torch.inf
    with pytest.raises(DataError, match="1 Gaussians have values that are not finite"):
        write_splat(gaussians, tmp_path / "a.splat")
    with pytest.raises(DataError, match="no Gaussians"):
        write_splat(gaussians[:0], tmp_path / "a.splat")
    assert not list(tmp_path.iterdir())


def test_colours_out_of_range_are_clamped(tmp_path):
    gaussians = Gaussians.from_rgb(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), torch.tensor([[-3.0, 0.5, 9.0]])
    )
    write_splat(gaussians, tmp_path / "a.splat")
    assert (tmp_path / "a.splat").read_bytes()[24:28] == bytes([0, 128, 255, 255])
