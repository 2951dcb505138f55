"""Packed formats against two converters that share no code with us: gaussforge, which holds Niantic's own SPZ code, and
splat-transform, of the authors of compressed PLY.

splat-transform is an npm package: `npm install -g @playcanvas/splat-transform` with Node 22 or later, or its command in
SPLAT_TRANSFORM. Both give every format back as plain PLY.
"""

import os
import shlex
import shutil
import subprocess

import pytest
import torch

from splatsense.gaussians import Gaussians
from splatsense.io import load, save, write_compressed_ply, write_ply

FORMATS = ("spz", "compressed.ply")
DEGREES = (0, 1, 2, 3)


def gaussforge_convert(source, target):
    gaussforge = pytest.importorskip("gaussforge")
    kinds = [
        next(kind for kind in ("compressed.ply", "ksplat", "spz", "ply") if str(p).endswith(kind)) for p in (source, target)
    ]
    version = next((v for v in (2, 3, 4) if f".v{v}." in str(target)), 3)
    result = gaussforge.GaussForge().convert(source.read_bytes(), *kinds, spz_version=version)
    target.write_bytes(result["data"])


def splat_transform_convert(source, target):
    command = os.environ.get("SPLAT_TRANSFORM") or shutil.which("splat-transform")
    if not command:
        pytest.skip("splat-transform is not installed (npm install -g @playcanvas/splat-transform)")
    subprocess.run([*shlex.split(command), "-w", source, target], check=True, capture_output=True)


@pytest.fixture(params=[gaussforge_convert, splat_transform_convert], ids=["gaussforge", "splat-transform"])
def convert(request):
    return request.param


@pytest.fixture
def source(make_gaussians):
    """Gaussians whose values lie within the range of every format."""

    def make(degree, count=300):
        g = make_gaussians(count, degree=degree)
        sh = torch.cat([g.sh[:, :1].clamp(-1.7, 1.7), g.sh[:, 1:].clamp(-3, 3) / 4], dim=1)
        return Gaussians(g.means, g.quats, g.scales + 1e-3, g.opacities * 0.9 + 0.05, sh)

    return make


def assert_same(a, b, position=2e-6, scale=2e-6, quat=1e-5, opacity=1e-6, color=1e-6, sh=1e-6):
    torch.testing.assert_close(a.means, b.means, rtol=0, atol=position)
    torch.testing.assert_close(a.scales.log(), b.scales.log(), rtol=0, atol=scale)
    torch.testing.assert_close(a.quats * (a.quats * b.quats).sum(1, keepdim=True).sign(), b.quats, rtol=0, atol=quat)
    torch.testing.assert_close(a.opacities, b.opacities, rtol=0, atol=opacity)
    torch.testing.assert_close(a.sh[:, 0], b.sh[:, 0], rtol=0, atol=color)
    torch.testing.assert_close(a.sh[:, 1:], b.sh[:, 1:], rtol=0, atol=sh)


def in_order_of(gaussians, wanted):
    """`gaussians`, which a converter has sorted, in the order of `wanted`."""
    order = (gaussians.means[None] - wanted.means[:, None]).abs().amax(2).argmin(1)
    assert len(order.unique()) == len(wanted)
    return gaussians[order]


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("format", FORMATS)
def test_others_read_what_we_write(tmp_path, source, convert, format, degree):
    ours = tmp_path / f"a.{format}"
    save(source(degree), ours)
    convert(ours, tmp_path / "b.ply")
    assert_same(load(ours), load(tmp_path / "b.ply"))


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("format", [*FORMATS, "v2.spz", "v4.spz"])
def test_we_read_what_others_write(tmp_path, source, convert, format, degree):
    write_ply(source(degree), tmp_path / "a.ply")
    theirs = tmp_path / f"b.{format}"
    convert(tmp_path / "a.ply", theirs)
    convert(theirs, tmp_path / "c.ply")
    assert_same(load(theirs), load(tmp_path / "c.ply"))
    back, wanted = in_order_of(load(theirs), source(degree)), source(degree)
    if convert is gaussforge_convert and format == "compressed.ply" and degree:
        # gaussforge writes f_rest_* with the channel varying fastest. The format has it vary slowest, as plain PLY does:
        # splat-transform reads our files and not gaussforge's as they were meant.
        back.sh[:, 1:] = back.sh[:, 1:].transpose(1, 2).flatten(1).unflatten(1, (-1, 3))
    quat = 0.1 if format == "v2.spz" else 0.0022  # 8 bits for x, y, z, and a w that follows from them
    assert_same(back, wanted, position=0.01, scale=1 / 32 + 1e-5, quat=quat, opacity=1 / 255, color=0.014, sh=17 / 256)


def test_axes_of_spz_are_those_of_ply(tmp_path, source, convert):
    """SPZ calls its axes right, up, back and PLY's right, down, front; no converter turns one into the other."""
    write_ply(source(1), tmp_path / "a.ply")
    convert(tmp_path / "a.ply", tmp_path / "a.spz")
    torch.testing.assert_close(load(tmp_path / "a.spz").means, source(1).means, rtol=0, atol=2**-13)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_ksplat_of_gaussforge(tmp_path, source, degree):
    write_ply(source(degree), tmp_path / "a.ply")
    gaussforge_convert(tmp_path / "a.ply", tmp_path / "b.ksplat")
    back, wanted = load(tmp_path / "b.ksplat"), source(degree)
    if degree == 2:
        # gaussforge writes all eight coefficients of red, then of green, then of blue. The viewer that defines the format
        # has degree 1 of all channels before degree 2, as its own files in data/ show.
        stored = [0, 1, 2, 9, 10, 11, 12, 13, 3, 4, 5, 14, 15, 16, 17, 18, 6, 7, 8, 19, 20, 21, 22, 23]
        shuffled = wanted.sh[:, 1:].transpose(1, 2).flatten(1)[:, stored]
        wanted.sh[:, 1:] = shuffled.unflatten(1, (3, 8)).transpose(1, 2)
    assert_same(back, wanted, opacity=1 / 255, color=0.014)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat_as_splat_transform_reads_it(tmp_path, level):
    file = os.path.join(os.path.dirname(__file__), "data", f"viewer_level{level}.ksplat")
    splat_transform_convert(file, tmp_path / "b.ply")
    assert_same(load(file), load(tmp_path / "b.ply"))


def test_an_order_that_is_kept(tmp_path, source, convert):
    write_compressed_ply(source(0), tmp_path / "a.compressed.ply", keep_order=True)
    convert(tmp_path / "a.compressed.ply", tmp_path / "b.ply")
    torch.testing.assert_close(load(tmp_path / "b.ply").means, source(0).means, rtol=0, atol=0.01)
