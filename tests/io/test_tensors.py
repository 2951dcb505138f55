import json
import logging
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.gaussians import Gaussians
from splatsense.io import load, read_npz, save, write_npz, write_safetensors

NAMES = ("means", "quats", "scales", "opacities", "sh")
KINDS = (".npz", ".safetensors")


def arrays(gaussians, **changes):
    found = {name: getattr(gaussians, name).numpy() for name in NAMES} | changes
    return {name: value for name, value in found.items() if value is not None}


def write_arrays(path, values):
    if path.suffix == ".npz":
        np.savez(path, **values)
    else:
        save_file({name: torch.from_numpy(np.array(value)) for name, value in values.items()}, path)
    return path


@pytest.mark.parametrize("suffix", KINDS)
@settings(max_examples=25)
@given(count=st.integers(1, 50), degree=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_round_trip_is_exact(tmp_path_factory, make_gaussians, suffix, count, degree, seed):
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    gaussians = make_gaussians(count, degree, seed)
    save(gaussians, path)
    back = load(path)
    for name in NAMES:
        assert torch.equal(getattr(back, name), getattr(gaussians, name))


def test_numpy_reads_and_writes_the_same(tmp_path, make_gaussians):
    gaussians = make_gaussians(7, 1)
    write_npz(gaussians, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["format_version"] == 1
        for name in NAMES:
            np.testing.assert_array_equal(found[name], getattr(gaussians, name))
    np.savez_compressed(tmp_path / "b.npz", **arrays(gaussians))
    assert torch.equal(read_npz(tmp_path / "b.npz").sh, gaussians.sh)


def test_metadata_of_safetensors(tmp_path, make_gaussians):
    write_safetensors(make_gaussians(2), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["__metadata__"] == {"format": "splatsense.gaussians", "version": "1"}
    assert header["means"]["dtype"] == "F32"


@pytest.mark.parametrize("suffix", KINDS)
def test_the_name_does_not_matter(tmp_path, make_gaussians, suffix):
    save(make_gaussians(5), tmp_path / f"a{suffix}")
    for name in ("b.bin", "b", "b.ply", "b.splat"):
        (tmp_path / name).write_bytes((tmp_path / f"a{suffix}").read_bytes())
        assert len(load(tmp_path / name)) == 5


CHANGES = [
    ({"sh": None}, FormatError, "not a file of Gaussians: it lacks sh of means"),
    ({"means": np.zeros((3, 3))}, FormatError, "means is .*(<f8|float64).*; save it as"),
    ({"means": np.zeros((4, 3), "f4")}, FormatError, "arrays do not belong together"),
    ({"means": np.zeros((), "f4")}, FormatError, "arrays do not belong together"),
    ({"sh": np.zeros((3, 5, 3), "f4")}, FormatError, "arrays do not belong together"),
    ({"opacities": np.array([0, 1, 2], "f4")}, DataError, "1 opacities lie outside 0 to 1, the first at 2"),
    ({"means": np.full((3, 3), np.nan, "f4")}, DataError, "every one of its 3 Gaussians has unusable values"),
]


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize(("change", "error", "message"), CHANGES)
def test_wrong_arrays(tmp_path, make_gaussians, suffix, change, error, message):
    path = write_arrays(tmp_path / f"a{suffix}", arrays(make_gaussians(3), **change))
    with pytest.raises(error, match=rf"a{suffix}: .*{message}"):
        load(path)


@pytest.mark.parametrize("suffix", KINDS)
def test_no_gaussians(tmp_path, make_gaussians, suffix):
    path = write_arrays(tmp_path / f"a{suffix}", arrays(make_gaussians(3)[:0]))
    with pytest.raises(FormatError, match="is empty: its arrays hold 0 Gaussians"):
        load(path)


@pytest.mark.parametrize("suffix", KINDS)
def test_unusable_gaussians_are_left_out(tmp_path, caplog, make_gaussians, suffix):
    gaussians = make_gaussians(5)
    gaussians.quats[1] = 0
    gaussians.means[2] = torch.inf
    gaussians.scales[3] = -1
    path = write_arrays(tmp_path / f"a{suffix}", arrays(gaussians))
    with caplog.at_level(logging.WARNING, "splatsense"):
        assert len(load(path)) == 2
    assert "left out 3 of 5 Gaussians" in caplog.text


def test_unknown_versions(tmp_path, make_gaussians):
    values = arrays(make_gaussians(3))
    np.savez(tmp_path / "a.npz", format_version=np.int64(2), **values)
    with pytest.raises(FormatError, match="has version '2' of the layout"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", format_version=np.array(["x"]), **values)
    with pytest.raises(FormatError, match="format_version is '<U1'"):
        load(tmp_path / "a.npz")
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    save_file(tensors, tmp_path / "a.safetensors", {"version": "2"})
    with pytest.raises(FormatError, match="has version '2' of the layout"):
        load(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "a.safetensors", {"format": "weights"})
    with pytest.raises(FormatError, match="holds 'weights', not Gaussians"):
        load(tmp_path / "a.safetensors")


class Touch:
    """Unpickling one leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_not_loaded(tmp_path, make_gaussians):
    means = np.array([Touch(tmp_path / "touched")], object)
    np.savez(tmp_path / "a.npz", **arrays(make_gaussians(1)) | {"means": means})
    with pytest.raises(FormatError, match=r"means is '\|O'"):
        load(tmp_path / "a.npz")
    assert not (tmp_path / "touched").exists()


def npy(header: str, body: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "means is not a NumPy array"),
        (b"\x93NUMPY\x09\0" + bytes(20), "means is not a NumPy array"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99, 3), }", bytes(12)), r"shape \(99, 3\), but 12 bytes"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 60 + ",), }", bytes(12)), "but 12 bytes"),
        (npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3), }", bytes(12)), "in Fortran order"),
        (npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1, 3), }", bytes(12)), "means is '>f4'"),
        (npy("__import__('os').abort()", b""), "the header of means is damaged"),
        (npy("(" * 9000, b""), "the header of means is damaged"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", bytes(12))[:30], "the header of means is damaged"),
    ],
)
def test_damaged_arrays(tmp_path, make_gaussians, data, message):
    values = arrays(make_gaussians(1), means=None)
    np.savez(tmp_path / "a.npz", **values)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("means.npy", data)
    with pytest.raises(FormatError, match=message):
        load(tmp_path / "a.npz")


def test_a_ratio_bomb(tmp_path, make_gaussians, monkeypatch):
    monkeypatch.setattr("splatsense.io._decompression.FREE_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", **arrays(make_gaussians(1), means=np.zeros((1 << 20, 3), "f4")))
    with pytest.raises(LimitError, match=r"a\.npz: with member 'means\.npy'"):
        load(tmp_path / "a.npz")


def test_a_header_that_is_too_large(tmp_path):
    header = b"{" + b" " * (2 << 20) + b"}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LimitError, match="its header takes 2097154 bytes"):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", KINDS)
def test_values_that_cannot_be_written(tmp_path, make_gaussians, suffix):
    gaussians = make_gaussians(3)
    gaussians.scales[0, 1] = torch.nan
    with pytest.raises(DataError, match="1 Gaussians have values that are not finite"):
        save(gaussians, tmp_path / f"a{suffix}")
    with pytest.raises(DataError, match="no Gaussians"):
        save(gaussians[:0], tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_half_precision_and_strided_tensors_are_written_as_float32(tmp_path, make_gaussians):
    gaussians = make_gaussians(6, 1)
    strided = Gaussians(**{name: getattr(gaussians, name)[::2].half() for name in NAMES})
    for suffix in KINDS:
        save(strided, tmp_path / f"a{suffix}")
        assert torch.equal(load(tmp_path / f"a{suffix}").means, strided.means.float())
