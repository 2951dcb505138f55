"""`data/` holds files that other programs made; see `data/README.md`."""

import copy
import functools
import io
import json
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.gaussians import Gaussians
from splatsense.io import load, read_ply, read_sog, save, write_ply, write_sog
from splatsense.io._images import decode_rgba

DATA = Path(__file__).parent / "data"
FIELDS = ("means", "quats", "scales", "opacities", "sh")


def webp(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "WEBP", **({"lossless": True, "exact": True} | options))
    return buffer.getvalue()


def png(width, height) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def image(*rows, width=2):
    """An image of `width` columns with the given pixels, the rest black."""
    pixels = np.zeros((-(-len(rows) // width) * width, 4), np.uint8)
    pixels[: len(rows)] = rows
    return webp(pixels.reshape(-1, width, 4))


def parts_v2():
    """The members of a file of three Gaussians with SH degree 1, as a dict that tests edit before `bundle`."""
    return copy.deepcopy(_parts_v2())


@functools.cache
def _parts_v2():
    ramp = np.linspace(-5, 0, 256).tolist()
    meta = {
        "version": 2,
        "count": 3,
        "means": {"mins": [0, -1, 0], "maxs": [1, 1, 0], "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": ramp, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": np.linspace(-1, 1, 256).tolist(), "files": ["sh0.webp"]},
        "shN": {
            "count": 2,
            "bands": 1,
            "codebook": np.linspace(0, 25.5, 256).tolist(),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        },
    }
    palette = np.zeros((1, 64 * 3, 4), np.uint8)
    palette[0, :6, :3] = np.arange(18).reshape(6, 3)
    return {
        "meta.json": meta,
        "means_l.webp": image((0, 255, 0, 255), (255, 255, 0, 255), (0, 0, 0, 255)),
        "means_u.webp": image((0, 127, 0, 255), (255, 255, 0, 255), (128, 0, 0, 255)),
        "scales.webp": image((255, 0, 51, 255), (0, 0, 0, 255), (1, 2, 3, 255)),
        "quats.webp": image((128, 128, 128, 252), (255, 128, 128, 253), (128, 0, 128, 255)),
        "sh0.webp": image((0, 255, 51, 0), (0, 0, 0, 255), (255, 255, 255, 51)),
        "shN_centroids.webp": webp(palette),
        "shN_labels.webp": image((1, 0, 0, 255), (0, 0, 0, 255), (1, 0, 0, 255)),
    }


def bundle(path, parts, folder="", method=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(folder + name, json.dumps(data) if isinstance(data, dict) else data)
    return path


def unpack(folder, parts) -> Path:
    folder.mkdir()
    for name, data in parts.items():
        (folder / name).write_bytes(json.dumps(data).encode() if isinstance(data, dict) else data)
    return folder


def test_a_file_written_by_hand(tmp_path):
    gaussians = read_sog(bundle(tmp_path / "a.sog", parts_v2()))
    x = [0, np.expm1(1), np.expm1(32768 / 65535)]
    np.testing.assert_allclose(gaussians.means[:, 0], x, rtol=1e-6)
    np.testing.assert_allclose(gaussians.means[:, 1], [-np.expm1(1 / 65535), np.expm1(1), -np.expm1(1)], atol=1e-6)
    assert gaussians.means[:, 2].tolist() == [0, 0, 0]
    np.testing.assert_allclose(gaussians.scales[0], np.exp([0, -5, -4]), rtol=1e-6)
    np.testing.assert_allclose(gaussians.opacities, [0, 1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(gaussians.sh[0, 0], [-1, 1, -0.6], rtol=1e-6)
    np.testing.assert_allclose(gaussians.sh[0, 1:], 0.1 * (9 + np.arange(9)).reshape(3, 3), rtol=1e-5)
    np.testing.assert_allclose(gaussians.sh[1, 1:], 0.1 * np.arange(9).reshape(3, 3), rtol=1e-5, atol=1e-7)
    half = (128 / 255 - 0.5) * 2**0.5
    np.testing.assert_allclose(gaussians.quats[0], [1, half, half, half], atol=1e-4)
    np.testing.assert_allclose(gaussians.quats[1], [0.5**0.5, 0.5**0.5, 0, 0], atol=3e-3)  # 253: x is the largest
    np.testing.assert_allclose(gaussians.quats[2], [0, -(0.5**0.5), 0, 0.5**0.5], atol=3e-3)  # 255: z is the largest


@pytest.mark.parametrize("where", ["bundle", "nested", "folder", "meta", "unnamed", "zip"])
def test_every_way_to_name_one(tmp_path, where):
    parts, expected = parts_v2(), read_sog(bundle(tmp_path / "a.sog", parts_v2()))
    paths = {
        "bundle": lambda: bundle(tmp_path / "b.sog", parts),
        "nested": lambda: bundle(tmp_path / "b.sog", parts, "scene/"),
        "folder": lambda: unpack(tmp_path / "b", parts),
        "meta": lambda: unpack(tmp_path / "b", parts) / "meta.json",
        "unnamed": lambda: bundle(tmp_path / "b", parts),
        "zip": lambda: bundle(tmp_path / "b.zip", parts),
    }
    found = load(paths[where]())
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "name",
    ["splat_transform_degree_0.sog", "splat_transform_degree_2.sog", "ours_degree_3.sog", "version_1.sog"],
)
def test_splat_transform_reads_the_same(name):
    """The .ply beside each .sog is what splat-transform made of it."""
    ours, theirs = load(DATA / name), load(DATA / name.replace(".sog", ".ply"))
    assert len(ours) == len(theirs) > 0
    assert ours.sh_degree == theirs.sh_degree
    for field in FIELDS:
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), rtol=2e-6, atol=2e-6, msg=field)


def test_splat_transform_keeps_what_we_wrote():
    """`ours_degree_3.ply` went through our writer and splat-transform's reader; compare with the source."""
    source = load(DATA / "source_degree_3.ply")
    back = load(DATA / "ours_degree_3.ply")
    source = source[torch.cdist(back.means, source.means).argmin(1)]
    torch.testing.assert_close(back.means, source.means, rtol=0, atol=2e-4)
    torch.testing.assert_close(back.sh, source.sh, rtol=0, atol=0.03)


@pytest.mark.parametrize("degree", range(4))
def test_gaussforge_agrees(tmp_path, make_gaussians, degree):
    gaussforge = pytest.importorskip("gaussforge", reason="it has no wheel for this platform")
    forge = gaussforge.GaussForge()
    write_ply(make_gaussians(300, degree, seed=degree), tmp_path / "source.ply")
    write_sog(make_gaussians(300, degree, seed=degree), tmp_path / "ours.sog")
    theirs = forge.convert((tmp_path / "source.ply").read_bytes(), "ply", "sog")["data"]
    (tmp_path / "theirs.sog").write_bytes(theirs)
    for name in ("ours", "theirs"):
        converted = forge.convert((tmp_path / f"{name}.sog").read_bytes(), "sog", "ply")["data"]
        (tmp_path / "converted.ply").write_bytes(converted)
        expected, found = read_ply(tmp_path / "converted.ply"), read_sog(tmp_path / f"{name}.sog")
        for field in FIELDS:
            torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=2e-6, atol=2e-6, msg=field)


def check_precision(before: Gaussians, after: Gaussians) -> None:
    """What the docstring of `sog` promises."""
    logged = [torch.sign(g.means.double()) * g.means.double().abs().log1p() for g in (before, after)]
    step = (logged[0].amax(0) - logged[0].amin(0)) / 65535
    assert ((logged[0] - logged[1]).abs() <= step / 2 + 2e-6 * (1 + logged[0].abs())).all()
    signed = after.quats * torch.where((before.quats * after.quats).sum(1, keepdim=True) < 0, -1, 1)
    error = (signed - before.quats).abs()
    largest = before.quats.abs().argmax(1)
    error[torch.arange(len(error)), largest] = 0
    near_tie = (before.quats.abs().sort(1).values.diff(dim=1)[:, -1] < 1e-6)[:, None]
    assert ((error <= 0.00278) | near_tie).all()
    torch.testing.assert_close(after.opacities, before.opacities, rtol=0, atol=1 / 510 + 1e-6)
    colours = [
        (before.scales.log(), after.scales.log()),
        (before.sh[:, 0], after.sh[:, 0]),
        (before.sh[:, 1:], after.sh[:, 1:]),
    ]
    for old, new in colours:
        if old.numel():
            error = (old - new).double()
            assert error.square().mean().sqrt() <= (old.max() - old.min()) / 510 * 1.0001 + 1e-5
            if old.numel() <= 256:
                assert error.abs().max() <= 1e-5


@settings(max_examples=25)
@given(count=st.integers(1, 400), degree=st.integers(0, 3), seed=st.integers(0, 2**31), size=st.sampled_from([1e-3, 1, 1e4]))
def test_round_trip_within_precision(tmp_path_factory, make_gaussians, count, degree, seed, size):
    path = tmp_path_factory.getbasetemp() / "round.sog"
    gaussians = make_gaussians(count, degree, seed).transform(scale=size)
    order = write_sog(gaussians, path)
    assert torch.equal(order.sort().values, torch.arange(count))
    check_precision(gaussians[order], read_sog(path))


def test_labels_stay_aligned(tmp_path, make_gaussians):
    gaussians = make_gaussians(200)
    labels = (gaussians.means[:, 0] > 0).long()
    order = write_sog(gaussians, tmp_path / "a.sog")
    assert not torch.equal(order, torch.arange(200))
    assert torch.equal(labels[order], (read_sog(tmp_path / "a.sog").means[:, 0] > 0).long())


def test_the_same_gaussians_give_the_same_bytes(tmp_path, make_gaussians):
    for name in ("a.sog", "b.sog"):
        save(make_gaussians(500, 2), tmp_path / name)
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def test_many_different_bands_are_averaged(tmp_path, make_gaussians, monkeypatch):
    monkeypatch.setattr("splatsense.io._sog_writer.PALETTE", 64)
    gaussians = make_gaussians(1000, 1)
    order = write_sog(gaussians, tmp_path / "a.sog")
    back = read_sog(tmp_path / "a.sog")
    assert len(torch.unique(back.sh[:, 1:].flatten(1), dim=0)) == 64
    bands = gaussians[order].sh[:, 1:]
    assert (back.sh[:, 1:] - bands).square().mean() < 0.7 * bands.square().mean()


def test_one_gaussian_and_equal_ones(tmp_path, make_gaussians):
    one = make_gaussians(1, 3)
    for count in (1, 7):
        gaussians = Gaussians.cat([one] * count)
        write_sog(gaussians, tmp_path / "a.sog")
        check_precision(gaussians, read_sog(tmp_path / "a.sog"))


def test_degree_4_and_scales_of_zero(tmp_path, caplog, make_gaussians):
    gaussians = make_gaussians(5, 4)
    gaussians.scales[0] = 0
    order = write_sog(gaussians, tmp_path / "a.sog")
    back = read_sog(tmp_path / "a.sog")
    assert "degree 4 is left out" in caplog.text
    assert back.sh_degree == 3
    assert (back.scales[order == 0] < 1e-29).all()


def test_values_that_cannot_be_written(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    gaussians.sh[1] = torch.nan
    with pytest.raises(DataError, match="1 Gaussians have values that are not finite"):
        write_sog(gaussians, tmp_path / "a.sog")
    with pytest.raises(DataError, match="no Gaussians"):
        write_sog(gaussians[:0], tmp_path / "a.sog")
    assert not list(tmp_path.iterdir())


def edited(**changes):
    """`meta.json` fields, with __ for a step inwards, and members (with a dot in the name) to replace; None deletes."""
    parts = parts_v2()
    for key, value in changes.items():
        *outer, last = key.split("__")
        inner = parts["meta.json"]
        for step in outer:
            inner = inner[step]
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    return parts


def replaced(name, data):
    return parts_v2() | {name: data}


def without(name):
    return {key: data for key, data in parts_v2().items() if key != name}


BROKEN = {
    "version": (edited(version=3), "meta.json: has version 3; versions 1 and 2 are known"),
    "text version": (edited(version="2"), "has version '2'"),
    "count 0": (edited(count=0), "count is 0, not a whole number of at least 1"),
    "count -1": (edited(count=-1), "count is -1"),
    "count 0.5": (edited(count=0.5), "count is 0.5"),
    "count too large": (edited(count=5), r"means_l.webp: has 2 x 2 pixels, fewer than the 5 Gaussians of meta.json"),
    "no count": (edited(count=None), "count is None"),
    "no means": (edited(means=None), "lacks 'means'"),
    "means is a list": (edited(means=[1]), r"means is \[1\], not an object"),
    "no files": (edited(means__files=None), "means.files has no name at place 0"),
    "one file": (edited(means__files=["means_l.webp"]), "means.files has no name at place 1"),
    "file out of it": (edited(quats__files=["../quats.webp"]), "quats.files names '../quats.webp'"),
    "absolute file": (edited(quats__files=["/etc/passwd"]), "quats.files names '/etc/passwd'"),
    "file elsewhere": (edited(quats__files=["c:quats.webp"]), "quats.files names 'c:quats.webp'"),
    "file missing": (without("quats.webp"), r"lacks the member 'quats.webp'"),
    "no meta": (without("meta.json"), "not a SOG file: it holds 0 meta.json"),
    "two meta": (replaced("b/meta.json", {}), "it holds 2 meta.json"),
    "mins short": (edited(means__mins=[0, 0]), r"means: mins is \[0, 0\], not 3 finite numbers"),
    "mins NaN": (edited(means__mins=[0, float("nan"), 0]), "means: mins is .*nan.*, not 3 finite numbers"),
    "mins infinite": (edited(means__mins=[0, 10**400, 0]), "not 3 finite numbers"),
    "codebook short": (edited(scales__codebook=[0.0] * 255), r"scales: codebook is .*, not 256 finite numbers"),
    "codebook text": (edited(sh0__codebook=["a"] * 256), "sh0: codebook is"),
    "codebook null": (edited(sh0__codebook=[None, None] + [0] * 254), "sh0: codebook is"),
    "palette of 0": (edited(shN__count=0), "shN: count is 0"),
    "palette of 65537": (edited(shN__count=65537), "shN: count is 65537, not a whole number from 1 to 65536"),
    "palette too large": (edited(shN__count=65), "shN_centroids.webp: has 192 x 1 pixels, fewer than 65 palette entries"),
    "palette too small": (edited(shN__count=1), "shN_labels.webp: Gaussian 0 refers to palette entry 1 of 1"),
    "bands 4": (edited(shN__bands=4), "shN: bands is 4"),
    "bands 2": (edited(shN__bands=2), "has 192 x 1 pixels, where 8 terms of spherical harmonics make it 512 wide"),
    "quaternion": (replaced("quats.webp", image((0, 0, 0, 252), (0, 0, 0, 7), (0, 0, 0, 255))), "Gaussian 1 has alpha 7"),
    "lossy": (replaced("scales.webp", webp(np.zeros((2, 2, 3)), lossless=False)), "is a lossy WebP image"),
    "lossy with alpha": (replaced("scales.webp", webp(np.eye(4)[None] * 9, lossless=False)), "is a lossy WebP image"),
    "another format": (replaced("scales.webp", b"GIF89a" + bytes(99)), "is not a WebP or PNG image: it starts with b'GIF89a"),
    "empty image": (replaced("scales.webp", b""), "is not a WebP or PNG image"),
    "too small": (replaced("sh0.webp", image((0, 0, 0, 0))), "sh0.webp: has 2 x 1 pixels, fewer than the 3"),
    "too large": (replaced("sh0.webp", webp(np.zeros((300, 300, 3)))), "sh0.webp: has 300 x 300 pixels, far more than the 3"),
    "grey": (replaced("sh0.webp", b""), "is not a WebP"),
    "meta cut off": (replaced("meta.json", b'{"version": 2, "cou'), "meta.json: is not JSON"),
    "meta a list": (replaced("meta.json", b"[]"), "meta.json: is a JSON list, not an object"),
    "meta nested": (replaced("meta.json", b"[" * 100_000), "meta.json: is not JSON"),
    "meta binary": (replaced("meta.json", b"\xff\xfe"), "meta.json: is not JSON"),
    "meta empty": (replaced("meta.json", b"{}"), "lacks 'means'"),
    "meta of something": (replaced("meta.json", b'{"means": {"a": 1}}'), "has neither a version nor means.shape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_files(tmp_path, name):
    parts, message = BROKEN[name]
    path = bundle(tmp_path / "a.sog", parts)
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_an_image_that_is_not_there(tmp_path):
    folder = unpack(tmp_path / "a", parts_v2())
    (folder / "quats.webp").unlink()
    for path in (folder, folder / "meta.json"):
        with pytest.raises(FormatError, match=rf"^{path}: refers to {folder / 'quats.webp'}: does not exist"):
            load(path)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (edited(count=10**9), LimitError, r"meta.json: claims 1000000000 Gaussians in \d+ bytes"),
        (edited(count=2**63), LimitError, "claims 9223372036854775808 Gaussians"),
        (replaced("meta.json", b"[" + b" " * (1 << 20) + b"]"), LimitError, "'meta.json' declares 1048578 bytes"),
        (replaced("sh0.webp", bytes(1 << 20)), LimitError, "'sh0.webp' declares 1048576 bytes"),
        (replaced("sh0.webp", png(4000, 4000)), FormatError, "4000 x 4000 pixels, far more"),
    ],
)
@pytest.mark.parametrize("form", [bundle, unpack])
def test_bombs(tmp_path, parts, error, message, form):
    if form is unpack:
        message = message.replace("'meta.json' declares 1048578 bytes", "is longer than 1048576 bytes")
        message = message.replace("'sh0.webp' declares 1048576 bytes", r"sh0.webp is longer than \d+ bytes")
    with pytest.raises(error, match=message):
        load(form(tmp_path / "a.sog", parts))


def test_dimensions_are_checked_before_decoding(tmp_path, monkeypatch):
    """A header that claims 16,383 x 16,383 pixels must not reach Pillow, which would allocate them."""
    data = bytearray(parts_v2()["means_l.webp"])
    position = data.find(b"VP8L") + 9
    data[position : position + 4] = struct.pack("<I", 0x0FFFFFFF)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(FormatError, match=r"means_l\.webp: has 16384 x 16384 pixels, far more than"):
        load(bundle(tmp_path / "a.sog", replaced("means_l.webp", bytes(data))))


def test_pillows_own_limit_is_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(LimitError, match=r"has 2 x 2 pixels, more than PIL.Image.MAX_IMAGE_PIXELS \(3\)"):
        load(bundle(tmp_path / "a.sog", parts_v2()))


def test_png_images_are_read(tmp_path):
    parts = parts_v2()
    expected = read_sog(bundle(tmp_path / "a.sog", parts))
    buffer = io.BytesIO()
    Image.open(io.BytesIO(parts["sh0.webp"])).save(buffer, "PNG")
    found = read_sog(bundle(tmp_path / "b.sog", parts | {"sh0.webp": buffer.getvalue()}))
    assert torch.equal(found.sh, expected.sh)


def test_a_codebook_that_starts_with_null(tmp_path):
    """As early releases of splat-transform wrote it; PlayCanvas extrapolates the same way."""
    found = load(bundle(tmp_path / "a.sog", edited(scales__codebook=[None, *np.linspace(-4, -1.5, 255).tolist()])))
    np.testing.assert_allclose(found.scales[0, 1], np.exp(-4 - 2.5 / 255), rtol=1e-6)


def test_positions_out_of_range_are_left_out(tmp_path, caplog):
    parts = edited(means__maxs=[1000, 1, 0])
    with caplog.at_level(logging.WARNING, "splatsense"):
        assert len(load(bundle(tmp_path / "a.sog", parts))) == 1
    assert "left out 2 of 3 Gaussians" in caplog.text


def test_truncation_at_every_byte(tmp_path):
    codebooks = {f"{section}__codebook": [0] * 256 for section in ("scales", "sh0", "shN")}
    data = bundle(tmp_path / "a.sog", edited(**codebooks), method=zipfile.ZIP_DEFLATED).read_bytes()
    path = tmp_path / "cut.sog"
    for end in range(len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(FormatError, match=r"cut\.sog: "):
            load(path)


@pytest.mark.parametrize("name", [name for name in parts_v2() if name != "meta.json"])
def test_images_truncated_at_every_byte(tmp_path, name):
    data = parts_v2()[name]
    for end in range(len(data)):
        with pytest.raises(FormatError, match=r"^here: "):
            decode_rgba(data[:end], "here", lambda width, height: None)
    with pytest.raises(FormatError, match=rf"a\.sog: {name}: "):
        load(bundle(tmp_path / "a.sog", parts_v2() | {name: data[:-1]}))


@settings(max_examples=40)
@given(
    which=st.sampled_from([name for name in parts_v2() if name != "meta.json"]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_images_with_flipped_bytes(tmp_path_factory, loads_or_says_why, which, edits):
    parts = parts_v2()
    data = bytearray(parts[which])
    for position, value in edits:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "flipped.sog"
    loads_or_says_why(bundle(path, parts | {which: bytes(data)}))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4)


@settings(max_examples=40)
@given(
    key=st.sampled_from(["version", "count", "means", "scales__codebook", "means__mins", "means__files", "shN", "shN__bands"]),
    value=JSON,
)
def test_invented_metadata(tmp_path_factory, loads_or_says_why, key, value):
    path = tmp_path_factory.getbasetemp() / "invented.sog"
    loads_or_says_why(bundle(path, edited(**{key: value})))
