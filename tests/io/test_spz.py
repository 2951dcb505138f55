import gzip
import io
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.info import file_info
from splatsense.io import load, read_spz, save, write_spz
from splatsense.io._spz_axes import COORDINATE_SYSTEM, DIRECTIONS, SYSTEMS, matrix_to_rub
from splatsense.spherical_harmonics import SH_C0, sh_to_rgb

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Two Gaussians, byte by byte. Positions with 8 fraction bits: (1, -1, 1.5) and (-0.00390625, 127.99609375, -128).
POSITIONS = b"\x00\x01\x00\x00\xff\xff\x80\x01\x00" + b"\xff\xff\xff\xff\x7f\x00\x00\x80\xff"
HALVES = struct.pack("<6e", 1, -1, 1.5, -0.00390625, 128, -128)
OPACITIES, COLORS, SCALES = b"\x00\xff", b"\x00\x80\xff" * 2, b"\xa0\x90\x00" * 2  # log scales 0, -1, -10
# xyz = (1, 0.0039, 0.0039) and (0.2, 0.2, 0.2), from 0 for -1 to 255 for 1.
FIRST_THREE = b"\xff\x80\x80" + b"\x99\x99\x99"
# The largest is w, the others 300/511 and -300/511 of sqrt(1/2) and 0; then x, with y = 73/511 of sqrt(1/2) = 0.101.
SMALLEST_THREE = struct.pack("<2I", 3 << 30 | 300 << 20 | (512 | 300) << 10, 73 << 20)
QUATS = {
    2: [[0.0, 1.0, 0.00392, 0.00392], [0.938083, 0.2, 0.2, 0.2]],
    3: [[0.809526, 0.415131, -0.415131, 0.0], [0.0, 0.994885, 0.101015, 0.0]],
}


def spz(version=3, degree=1, harmonics=None, flags=0, records=b"", tail=b"", streams=None, **changed):
    """The bytes of an SPZ file of the two Gaussians above; `changed` are header fields that lie."""
    harmonics = bytes(range(100, 100 + 3 * ((degree + 1) ** 2 - 1))) * 2 if harmonics is None else harmonics
    rotations = SMALLEST_THREE if version >= 3 else FIRST_THREE
    attributes = [HALVES if version == 1 else POSITIONS, OPACITIES, COLORS, SCALES, rotations, harmonics]
    fields = {"magic": b"NGSP", "version": version, "count": 2, "degree": degree, "bits": 8, "flags": flags}
    fields |= {key: value for key, value in changed.items() if key in fields}
    header = struct.pack("<4s2I3B", *fields.values())
    if version < 4:
        data = header + b"\0" + b"".join(attributes) + records + tail
        return data if changed.get("plain") else gzip.compress(data, mtime=0)
    streams = [zstd.compress(data) for data in attributes if data] if streams is None else streams
    sizes = [len(data) for data in attributes if data]
    table = b"".join(struct.pack("<2Q", len(s), size) for s, size in zip(streams, sizes, strict=True))
    place = struct.pack("<I12x", changed.get("table", 32 + len(records)))
    return header + bytes([len(streams)]) + place + records + table + b"".join(streams) + tail


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("plain", [False, True])
def test_a_file_written_by_hand(tmp_path, version, plain):
    (tmp_path / "a.spz").write_bytes(spz(version, plain=plain))
    gaussians = load(tmp_path / "a.spz")
    last = 128 if version == 1 else 127.99609375
    assert gaussians.means.tolist() == [[1, -1, 1.5], [-0.00390625, last, -128]]
    torch.testing.assert_close(gaussians.scales.log(), torch.tensor([[0.0, -1, -10]] * 2), rtol=0, atol=1e-6)
    assert gaussians.opacities.tolist() == [0, 1]
    torch.testing.assert_close(gaussians.sh[:, 0], torch.tensor([[-1.0, 1 / 255, 1]] * 2) / 0.3)
    torch.testing.assert_close(gaussians.quats, torch.tensor(QUATS[min(3, max(2, version))]), rtol=0, atol=2e-5)
    # Coefficient by coefficient, red, green, blue.
    assert gaussians.sh[0, 1:].flatten().tolist() == [(code - 128) / 128 for code in range(100, 109)]


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("degree", range(5))
def test_every_degree(tmp_path, version, degree):
    (tmp_path / "a.spz").write_bytes(spz(version, degree))
    assert load(tmp_path / "a.spz").sh_degree == degree


@settings(max_examples=30)
@given(
    count=st.integers(1, 300),
    degree=st.integers(0, 4),
    size=st.sampled_from([1e-4, 1.0, 30.0, 1e3, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_round_trip_within_the_stated_precision(tmp_path_factory, make_gaussians, count, degree, size, seed):
    path = tmp_path_factory.mktemp("spz") / "a.spz"
    gaussians = make_gaussians(count, degree=degree, seed=seed).transform(scale=size)
    write_spz(gaussians, path)
    back = load(path)
    extent = float(gaussians.means.abs().max())
    step = extent / 65536 if extent < 8 else 2**-13 if extent < 2048 else extent / 2**22
    torch.testing.assert_close(back.means, gaussians.means, rtol=1e-6, atol=step)
    log_scales = gaussians.scales.log().clamp(-10, 255 / 16 - 10)
    torch.testing.assert_close(back.scales.log(), log_scales, rtol=0, atol=1 / 32 + 1e-5)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    colors = gaussians.sh[:, 0].clamp(-0.5 / 0.15, 0.5 / 0.15)
    torch.testing.assert_close(back.sh[:, 0] * SH_C0, colors * SH_C0, rtol=0, atol=0.0037)
    sign = (back.quats * gaussians.quats).sum(1, keepdim=True).sign()
    torch.testing.assert_close(back.quats, gaussians.quats * sign, rtol=0, atol=0.0022)
    harmonics = gaussians.sh[:, 1:].clamp(-1, 127 / 128)
    torch.testing.assert_close(back.sh[:, 1:4], harmonics[:, :3], rtol=0, atol=1 / 32 + 1e-6)
    torch.testing.assert_close(back.sh[:, 4:], harmonics[:, 3:], rtol=0, atol=1 / 16 + 1e-6)


def test_writing_again_gives_the_same_bytes(tmp_path, make_gaussians):
    save(make_gaussians(50, degree=3), tmp_path / "a.spz")
    save(load(tmp_path / "a.spz"), tmp_path / "b.spz")
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()


def test_values_out_of_range_are_clamped(tmp_path):
    unit = torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)
    gaussians = Gaussians(
        torch.zeros(2, 3), unit, torch.tensor([[0.0, 1e9, 1]] * 2), torch.tensor([0.0, 1]), torch.full((2, 4, 3), 99.0)
    )
    write_spz(gaussians, tmp_path / "a.spz")
    back = load(tmp_path / "a.spz")
    torch.testing.assert_close(back.scales[0].log(), torch.tensor([-10.0, 255 / 16 - 10, 0]))
    assert back.opacities.tolist() == [0, 1]
    assert back.sh[:, 1:].unique().tolist() == [127 / 128]


def test_what_cannot_be_written(tmp_path, make_gaussians):
    gaussians = make_gaussians(3)
    gaussians.means[1, 2] = 1e7
    with pytest.raises(DataError, match=r"coordinates reach 1e\+07, SPZ holds 8388607"):
        write_spz(gaussians, tmp_path / "a.spz")
    gaussians.means[1, 2] = torch.nan
    with pytest.raises(DataError, match="1 Gaussians have values that are not finite"):
        write_spz(gaussians, tmp_path / "a.spz")
    with pytest.raises(DataError, match="no Gaussians"):
        write_spz(gaussians[:0], tmp_path / "a.spz")
    assert not list(tmp_path.iterdir())


def axes_record(number, size=4):
    return (
        struct.pack("<II", 0x12340001, 3)
        + b"abc"
        + struct.pack("<II", COORDINATE_SYSTEM, size)
        + bytes([number, 0, 0, 0])[:size]
    )


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("axes", SYSTEMS)
def test_axes_named_in_the_file_become_rub(tmp_path, version, axes):
    """What is seen of a Gaussian along a direction is the same before and after, mirrored systems included."""
    harmonics = bytes(np.random.default_rng(0).integers(0, 256, 144, dtype=np.uint8))
    (tmp_path / "kept.spz").write_bytes(spz(version, 4, harmonics))
    record = axes_record(SYSTEMS.index(axes) + 1)
    (tmp_path / "named.spz").write_bytes(spz(version, 4, harmonics, flags=2, records=record))
    kept, named = load(tmp_path / "kept.spz"), load(tmp_path / "named.spz")
    matrix = matrix_to_rub(axes)
    torch.testing.assert_close(named.means, kept.means @ matrix.T)
    covariances = [
        quaternion_to_matrix(g.quats) @ torch.diag_embed(g.scales**2) @ quaternion_to_matrix(g.quats).mT for g in (kept, named)
    ]
    torch.testing.assert_close(covariances[1], matrix @ covariances[0] @ matrix.T)
    directions = torch.nn.functional.normalize(torch.randn(20, 1, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(sh_to_rgb(named.sh, directions @ matrix.T), sh_to_rgb(kept.sh, directions), atol=1e-4, rtol=0)


def test_the_meaning_of_axes():
    assert matrix_to_rub("RDF").tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    assert matrix_to_rub("RUF").tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, -1]]
    assert matrix_to_rub("RFU").tolist() == [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    assert (SYSTEMS.index("RUB"), SYSTEMS.index("RDF"), SYSTEMS.index("LFD"), SYSTEMS.index("RBU")) == (3, 5, 8, 15)
    assert len(DIRECTIONS) == 6
    assert len(set(SYSTEMS)) == 16


def test_the_antialiased_flag_is_said(tmp_path, caplog):
    (tmp_path / "a.spz").write_bytes(spz(flags=1))
    with caplog.at_level("INFO", "splatsense"):
        load(tmp_path / "a.spz")
    assert "trained for antialiased rendering" in caplog.text
    caplog.clear()
    info = file_info(tmp_path / "a.spz")
    assert info.notes == ["was trained for antialiased rendering; draw it with RasterSettings(antialiased=True)."]
    assert info.notes[0] not in info.warnings
    assert f"  - {info.notes[0]}" in str(info)
    assert info.to_json()["notes"] == info.notes
    assert not caplog.text
    (tmp_path / "b.spz").write_bytes(spz())
    assert file_info(tmp_path / "b.spz").notes == []


def test_a_damaged_half_costs_its_gaussian(tmp_path, caplog):
    data = bytearray(spz(1, plain=True))
    data[16:18] = b"\x00\x7c"  # infinity
    (tmp_path / "a.spz").write_bytes(data)
    assert len(load(tmp_path / "a.spz")) == 1
    assert "left out 1 of 2 Gaussians with unusable values (1 in position)" in caplog.text


def v4(**changed):
    """A version 4 file whose first stream is something else."""
    streams = [zstd.compress(data) for data in (POSITIONS, OPACITIES, COLORS, SCALES, SMALLEST_THREE)]
    return spz(4, 0, streams=[changed["first"], *streams[1:]])


BROKEN = {
    "version 0": (spz(version=0), "SPZ version 0 is not known here, only 1 to 4"),
    "version 4 in gzip": (gzip.compress(spz(4)), "SPZ version 4 is not known here"),
    "version 5": (spz(4).replace(b"NGSP\4", b"NGSP\5"), "SPZ version 5 is not known here"),
    "no Gaussians": (spz(count=0), "is empty: it declares 0 Gaussians"),
    "degree": (spz(plain=True).replace(b"\2\0\0\0\1", b"\2\0\0\0\5", 1), "SH degree 5 at byte 12 is not known"),
    "flags": (spz(flags=0x80), "flags 0x80 at byte 14 are not known"),
    "fraction bits": (spz(bits=31), "31 fraction bits at byte 13"),
    "another gzip": (gzip.compress(b"hello" * 9), "is not an SPZ file: it starts with b'hell'"),
    "empty gzip": (gzip.compress(b""), "cut off: the gzip stream ends after 0 bytes, 16 short"),
    "not compressed at all": (b"hello" * 9, r"is not a \.spz file: it starts with b'hellohellohe'"),
    "gzip checksum": (spz()[:-8] + bytes(8), "the gzip stream is damaged after .* decompressed bytes"),
    "2^32 - 1 Gaussians": (spz(count=2**32 - 1), "promises 4294967295 Gaussians of 124554051555 bytes, but .* can hold"),
    "2^31 Gaussians": (spz(4, 0, count=2**31), "promises 2147483648 Gaussians of 42949672960 bytes, but .* can hold"),
    "too many Gaussians": (spz(count=3), "cut off: the gzip stream ends after 74 bytes, 29 short"),
    "more in the stream": (spz(tail=b"\0"), "the gzip stream goes on after the 74 bytes that the header promises"),
    "more after the stream": (spz() + b"\1", "other data follows the gzip stream"),
    "another member": (spz() + spz(), "other data follows the gzip stream"),
    "plain, cut off": (spz(plain=True)[:-1], "cut off: 2 Gaussians end at byte 74, but the file has 73 bytes"),
    "plain, longer": (spz(plain=True) + b"\0", "damaged: 2 Gaussians end at byte 74, but the file has 75 bytes"),
    "v4, longer": (spz(4) + b"\0", r"damaged: its streams end at byte \d+, but the file has"),
    "v4, stream count": (spz(4, degree=0, harmonics=b"\0" * 18), "6 streams with a table at byte 32; SH degree 0 needs 5"),
    "v4, table in the header": (spz(4, table=16), "6 streams with a table at byte 16"),
    "v4, table far away": (spz(4, table=2**32 - 1), "6 streams with a table at byte 4294967295"),
    "v4, size of a stream": (spz(4, count=3), "the stream of positions has 18 bytes, 3 Gaussians need 27"),
    "v4, stream too short": (v4(first=zstd.compress(POSITIONS[:9])), "the stream of positions ends after 9 bytes, 9 short"),
    "v4, stream too long": (v4(first=zstd.compress(POSITIONS * 2)), "the stream of positions goes on after the 18 bytes"),
    "v4, second frame": (v4(first=zstd.compress(POSITIONS) * 2), "other data follows the stream of positions"),
    "v4, no zstd": (v4(first=b"x" * 18), "the stream of positions is damaged after 0 decompressed bytes"),
    "record without header": (spz(flags=2, records=b"1234"), "its extension record 0 bytes in has no header"),
    "record cut off": (spz(flags=2, records=struct.pack("<II", 1, 99)), "promises 99 bytes, but 0 follow"),
    "unknown axes": (spz(flags=2, records=axes_record(17)), "coordinate system 17 .* is not known"),
    "axes of two bytes": (spz(4, flags=2, records=axes_record(4, 2)), r"coordinate system 0 \(2 bytes\) is not known"),
    "endless records": (spz(flags=2, records=bytes(1 << 21)), "goes on for more than 1048576 bytes after its last Gaussian"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_files(tmp_path, data, message):
    (tmp_path / "a.spz").write_bytes(data)
    with pytest.raises(FormatError, match=rf"a\.spz: .*{message}"):
        load(tmp_path / "a.spz")


WHOLE = {"1": spz(1), "3": spz(3), "plain": spz(3, plain=True), "4": spz(4), "axes": spz(4, flags=2, records=axes_record(4))}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_files_cut_off_at_every_byte(tmp_path, data):
    for size in range(len(data)):
        (tmp_path / "a.spz").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.spz: "):
            load(tmp_path / "a.spz")


def test_content_goes_before_the_extension(tmp_path):
    for name, version in (("a.ply", 3), ("b", 4), ("c.splat", 2)):
        (tmp_path / name).write_bytes(spz(version))
        assert len(load(tmp_path / name)) == 2


def peak_of_reading(path, **options):
    """Bytes that NumPy and Python allocate at most while `path` is refused."""
    tracemalloc.start()
    try:
        with pytest.raises((FormatError, LimitError)) as caught:
            read_spz(path, **options)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def bomb_of_gzip(count):
    """A file of about 100 KB that goes on for 100 MB."""
    return gzip.compress(struct.pack("<4s2I4B", b"NGSP", 3, count, 0, 12, 0, 0) + bytes(100_000_000), 1, mtime=0)


def test_a_gzip_bomb_is_not_inflated(tmp_path):
    (tmp_path / "a.spz").write_bytes(bomb_of_gzip(count=2))
    peak, message = peak_of_reading(tmp_path / "a.spz")
    assert "goes on after the 56 bytes that the header promises" in message
    assert peak < 3_000_000
    (tmp_path / "a.spz").write_bytes(bomb_of_gzip(count=5_000_000))
    assert "more than 95" in peak_of_reading(tmp_path / "a.spz")[1]  # 64 times the size of the file and 64 MiB
    peak, message = peak_of_reading(tmp_path / "a.spz", max_bytes=50_000_000)
    assert "5000000 Gaussians would decompress to 100000000 bytes, more than 50000000" in message
    assert peak < 3_000_000


def test_a_zstd_bomb_is_not_inflated(tmp_path):
    (tmp_path / "a.spz").write_bytes(v4(first=zstd.compress(bytes(100_000_000))))
    peak, message = peak_of_reading(tmp_path / "a.spz")
    assert "the stream of positions goes on after the 18 bytes" in message
    assert peak < 3_000_000


def test_a_zstd_window_larger_than_the_stream_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zstd.open(buffer, "wb", options={zstd.CompressionParameter.window_log: 27}) as handle:
        handle.write(POSITIONS)
    (tmp_path / "a.spz").write_bytes(v4(first=buffer.getvalue()))
    with pytest.raises(FormatError, match=r"the stream of positions is damaged after 0 .* too much memory"):
        load(tmp_path / "a.spz")


def test_the_cap_counts_all_streams_together(tmp_path):
    (tmp_path / "a.spz").write_bytes(spz(4))
    assert len(read_spz(tmp_path / "a.spz", max_bytes=58)) == 2
    with pytest.raises(LimitError, match=r"2 Gaussians would decompress to 58 bytes, more than 57; .* a larger max_bytes"):
        read_spz(tmp_path / "a.spz", max_bytes=57)
    (tmp_path / "a.spz").write_bytes(spz(3, plain=True))
    with pytest.raises(LimitError, match="more than 57"):
        read_spz(tmp_path / "a.spz", max_bytes=57)
