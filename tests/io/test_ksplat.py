"""The files in data/ are those that the viewer GaussianSplats3D 0.4.7 made of viewer.ply at its three compression levels,
in two sections with blocks of 2.5 units and buckets of 6."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import FormatError
from splatsense.io import load, read_ksplat
from splatsense.spherical_harmonics import SH_C0

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("level", "position", "relative", "harmonics"),
    [(0, 0, 1e-6, 0), (1, 2.5 / 131068, 1e-3, 1e-3), (2, 2.5 / 131068, 1e-3, 0.0075)],
)
def test_files_of_the_viewer(level, position, relative, harmonics):
    source, back = load(DATA / "viewer.ply"), load(DATA / f"viewer_level{level}.ksplat")
    order = torch.cdist(back.means, source.means).argmin(1)
    assert sorted(order.tolist()) == list(range(60))
    source = source[order]
    torch.testing.assert_close(back.means, source.means, rtol=0, atol=position + 5e-7)
    torch.testing.assert_close(back.scales, source.scales, rtol=relative, atol=0)
    sign = (back.quats * source.quats).sum(1, keepdim=True).sign()
    torch.testing.assert_close(back.quats * sign, source.quats, rtol=0, atol=relative)
    torch.testing.assert_close(back.opacities, source.opacities, rtol=0, atol=1 / 255)
    torch.testing.assert_close(back.rgb, source.rgb, rtol=0, atol=1.001 / 255)
    torch.testing.assert_close(back.sh[:, 1:], source.sh[:, 1:], rtol=0, atol=harmonics)


def section(level, degree, rows, full=0, size=0, partial=(), centres=(), block=2.0, steps=0, count=None, **changed):
    """Header and body of one section; `changed` are header fields that lie."""
    fields = {"count": len(rows) if count is None else count, "capacity": len(rows), "size": size}
    fields |= {"buckets": len(centres), "block": block, "bucket_bytes": 12 if level else 0, "steps": steps, "stored": 0}
    fields |= {"full": full, "partial": len(partial), "degree": degree} | changed
    header = struct.pack("<4IfH2x4IH", *fields.values()).ljust(1024, b"\0")
    body = struct.pack(f"<{len(partial)}I", *partial) + b"".join(struct.pack("<3f", *centre) for centre in centres)
    return header, body + b"".join(rows)


def ksplat(level, *sections, version=(0, 1), count=None, sections_count=None, limits=(0.0, 0.0), tail=b""):
    total = sum(struct.unpack_from("<I", header)[0] for header, _ in sections)
    number = len(sections) if sections_count is None else sections_count
    counts = number, len(sections), total, total if count is None else count
    header = struct.pack("<2B2x4IH2x3f2f", *version, *counts, level, 9, 9, 9, *limits)
    headers, bodies = zip(*sections, strict=True) if sections else ((), ())
    return header.ljust(4096, b"\0") + b"".join(headers) + b"".join(bodies) + tail


def row(level, mean=(1, 2, 3), scale=(0.5, 0.25, 2), quat=(0, 1, 0, 0), rgba=(255, 0, 51, 102), harmonics=()):
    position, other, sh = {0: ("f", "f", "f"), 1: ("H", "e", "e"), 2: ("H", "e", "B")}[level]
    return struct.pack(f"<3{position}7{other}4B{len(harmonics)}{sh}", *mean, *scale, *quat, *rgba, *harmonics)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_file_written_by_hand(tmp_path, level):
    harmonics = list(range(24)) if level < 2 else [value * 5 for value in range(24)]
    buckets = {"partial": [1], "centres": [(10, 20, 30)]} if level else {}
    (tmp_path / "a.ksplat").write_bytes(ksplat(level, section(level, 2, [row(level, harmonics=harmonics)], **buckets)))
    gaussians = load(tmp_path / "a.ksplat")
    # Two units of a block are 65,534 steps, counted from one unit before the centre.
    means = [[1, 2, 3]] if level == 0 else [[9 + 1 / 32767, 19 + 2 / 32767, 29 + 3 / 32767]]
    torch.testing.assert_close(gaussians.means, torch.tensor(means, dtype=torch.float32), rtol=0, atol=2e-6)
    assert gaussians.scales.tolist() == [[0.5, 0.25, 2]]
    assert gaussians.quats.tolist() == [[0, 1, 0, 0]]
    torch.testing.assert_close(gaussians.sh[:, 0] * SH_C0 + 0.5, torch.tensor([[1.0, 0, 0.2]]))
    torch.testing.assert_close(gaussians.opacities, torch.tensor([0.4]))
    # Degree 1 of red, of green, of blue; then degree 2 likewise.
    red, green, blue = [0, 1, 2, 9, 10, 11, 12, 13], [3, 4, 5, 14, 15, 16, 17, 18], [6, 7, 8, 19, 20, 21, 22, 23]
    expected = torch.tensor([red, green, blue], dtype=torch.float32).T[None]
    if level == 2:
        expected = expected * 5 / 255 * 3 - 1.5  # a range of zeros in the header means -1.5 to 1.5
    torch.testing.assert_close(gaussians.sh[:, 1:], expected, rtol=0, atol=1e-6)


@settings(max_examples=40)
@given(
    full=st.integers(0, 3), size=st.integers(1, 4), partial=st.lists(st.integers(1, 3), max_size=4), unused=st.integers(0, 2)
)
def test_buckets(tmp_path_factory, full, size, partial, unused):
    owners = [bucket for bucket in range(full) for _ in range(size)]
    owners += [full + index for index, length in enumerate(partial) for _ in range(length)]
    if not owners:
        return
    path = tmp_path_factory.mktemp("ksplat") / "a.ksplat"
    rows = [row(1, mean=(100, 100, 100))] * len(owners)
    centres = [(bucket, 0, -bucket) for bucket in range(full + len(partial))]
    count = max(1, len(owners) - unused)  # a section may have room for more than it holds
    path.write_bytes(ksplat(1, section(1, 0, rows, full, size, partial, centres, steps=100, count=count)))
    assert load(path).means.tolist() == [[owner, 0, -owner] for owner in owners[:count]]


def test_sections_of_different_degree(tmp_path):
    first, empty = section(0, 0, [row(0)] * 2), section(0, 1, [])
    third = section(0, 1, [row(0, mean=(7, 8, 9), harmonics=[0.5] * 9)])
    (tmp_path / "a.ksplat").write_bytes(ksplat(0, first, empty, third))
    gaussians = load(tmp_path / "a.ksplat")
    assert gaussians.sh_degree == 1
    assert gaussians.means[:, 0].tolist() == [1, 1, 7]
    assert gaussians.sh[:, 1:].amax((1, 2)).tolist() == [0, 0, 0.5]


def test_unusable_records_are_left_out(tmp_path, caplog):
    rows = [row(0), row(0, mean=(np.nan, 0, 0)), row(0, quat=(0, 0, 0, 0)), row(0, scale=(np.inf, 1, 1))]
    (tmp_path / "a.ksplat").write_bytes(ksplat(0, section(0, 0, rows)))
    assert len(load(tmp_path / "a.ksplat")) == 1
    assert "left out 3 of 4 Gaussians" in caplog.text


ONE = section(0, 0, [row(0)])
PACKED = {"partial": [1], "centres": [(0, 0, 0)]}
BROKEN = {
    "empty header": (b"\0\1" + bytes(100), "102 bytes are less than its header of 4096"),
    "version 0.0": (ksplat(0, ONE, version=(0, 0)), r"\.ksplat version 0\.0 is not known, only 0\.1"),
    "version 1.0": (ksplat(0, ONE, version=(1, 0)), r"\.ksplat version 1\.0 is not known"),
    "level": (ksplat(3, ONE), "compression level 3 at byte 20 is not known"),
    "no Gaussians": (ksplat(0), "is empty: it declares 0 Gaussians"),
    "sections": (ksplat(0, ONE, sections_count=2**32 - 1), r"headers of its 4294967295 sections end at byte 4398046514176"),
    "degree": (ksplat(0, section(0, 3, [row(0)])), "section 0, header at byte 4096: SH degree 3 is not known"),
    "capacity": (ksplat(0, section(0, 0, [row(0)], capacity=2**32 - 1)), "4294967295 Gaussians ends at byte 18897856"),
    "count": (ksplat(0, section(0, 0, [row(0)], count=2)), "2 Gaussians in room for 1"),
    "sum": (ksplat(0, ONE, count=2), "the header promises 2 Gaussians, its sections hold 1"),
    "trailing bytes": (ksplat(0, ONE, tail=b"abc"), "3 bytes follow the last section at byte 5164"),
    "bucket count": (ksplat(1, section(1, 0, [row(1)], **PACKED, full=1)), "1 full and 1 other buckets do not make 1 of 12"),
    "bucket bytes": (ksplat(1, section(1, 0, [row(1)], **PACKED, bucket_bytes=16)), "do not make 1 of 12 bytes"),
    "bucket sizes": (ksplat(1, section(1, 0, [row(1)], partial=[9], centres=[(0, 0, 0)])), "hold 9 Gaussians, not 1"),
    "huge buckets": (ksplat(1, section(1, 0, [row(1)], full=1, size=2**32 - 1, centres=[(0, 0, 0)])), "hold 4294967295 Gau"),
    "block": (ksplat(1, section(1, 0, [row(1)], **PACKED, block=np.nan)), "nan is no size of a block"),
    "range": (ksplat(2, section(2, 1, [row(2, harmonics=[0] * 9)], **PACKED), limits=(2, 1)), "2.0 to 1.0 at byte 36 is no"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_files(tmp_path, data, message):
    (tmp_path / "a.ksplat").write_bytes(data)
    with pytest.raises(FormatError, match=rf"a\.ksplat: .*{message}"):
        load(tmp_path / "a.ksplat")


def test_files_cut_off_at_every_byte(tmp_path):
    data = ksplat(1, section(1, 0, [row(1)] * 2, partial=[2], centres=[(0, 0, 0)]))
    for size in [*range(0, 60), *range(60, 4096, 50), *range(4090, 4150), *range(4150, 5120, 50), *range(5110, len(data))]:
        (tmp_path / "a.ksplat").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.ksplat: "):
            load(tmp_path / "a.ksplat")
    (tmp_path / "a.ksplat").write_bytes(data)
    assert len(read_ksplat(tmp_path / "a.ksplat")) == 2
