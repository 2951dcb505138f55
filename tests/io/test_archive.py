import io
import stat
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.errors import FormatError, LimitError, SplatSenseError
from splatsense.io import _decompression
from splatsense.io._archive import open_archive


def zipped(*members, method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def member(name, mode=0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def read_all(path):
    with open_archive(path) as archive:
        return {name: bytes(archive.read(name, 1 << 30)) for name in archive.names}


def test_members_are_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(("one", b"1" * 5000), ("folder/two", b""), ("folder/", b"")))
    assert read_all(tmp_path / "a.zip") == {"one": b"1" * 5000, "folder/two": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("../evil"), "leads out of the archive"),
        (member("a/../../evil"), "leads out of the archive"),
        (member("a\\..\\evil"), "leads out of the archive"),
        (member("/etc/passwd"), "has an absolute path"),
        (member("C:\\evil"), "has an absolute path"),
        (member("\\\\server\\evil"), "has an absolute path"),
        (member("link", stat.S_IFLNK | 0o777), "is a link"),
        (member("device", stat.S_IFCHR | 0o666), "is not a regular file"),
        (member("ONE"), "occurs twice"),
    ],
)
def test_hostile_members(tmp_path, info, message):
    (tmp_path / "a.zip").write_bytes(zipped(("one", b"1"), (info, b"target")))
    with pytest.raises(FormatError, match=rf"a\.zip: member .* {message}"):
        read_all(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(("one", b"1"), ("one", b"2")))
    with pytest.raises(FormatError, match="member 'one' occurs twice"):
        read_all(tmp_path / "a.zip")


def flags(data: bytes, flag: int, method: int | None = None) -> bytes:
    """The archive with flag bits, and a method, set in all its headers."""
    edited = bytearray(data)
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        position = edited.find(signature)
        edited[position + at] |= flag
        if method is not None:
            struct.pack_into("<H", edited, position + at + 2, method)
    return bytes(edited)


def test_encryption_and_other_methods(tmp_path):
    data = zipped(("one", b"1" * 100))
    (tmp_path / "a.zip").write_bytes(flags(data, 1))
    with pytest.raises(FormatError, match="member 'one' is encrypted"):
        read_all(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(flags(data, 0, zipfile.ZIP_LZMA))
    with pytest.raises(FormatError, match="is compressed with method 14, not deflate"):
        read_all(tmp_path / "a.zip")


def test_a_ratio_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(_decompression, "FREE_BYTES", 1 << 20)
    (tmp_path / "a.zip").write_bytes(zipped(("zeros", bytes(8 << 20))))
    with (
        open_archive(tmp_path / "a.zip") as archive,
        pytest.raises(LimitError, match="would inflate to more than 15"),
    ):
        archive.read("zeros", 1 << 30)


def test_the_cap_is_on_all_members_together(tmp_path, monkeypatch):
    monkeypatch.setattr(_decompression, "FREE_BYTES", 1 << 20)
    names = [f"zeros{index}" for index in range(4)]
    (tmp_path / "a.zip").write_bytes(zipped(*((name, bytes(400_000)) for name in names)))
    with open_archive(tmp_path / "a.zip") as archive:
        for name in names[:2]:
            archive.read(name, 1 << 20)
        with pytest.raises(LimitError, match="with member 'zeros2'"):
            archive.read("zeros2", 1 << 20)


def test_a_member_longer_than_makes_sense(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(("one", bytes(100))))
    with open_archive(tmp_path / "a.zip") as archive, pytest.raises(LimitError, match="declares 100 bytes; 99 is the most"):
        archive.read("one", 99)


def declare(data: bytes, size: int) -> bytes:
    """The archive of one member with another size declared in both headers."""
    edited = bytearray(data)
    struct.pack_into("<I", edited, edited.find(b"PK\3\4") + 22, size)
    struct.pack_into("<I", edited, edited.find(b"PK\1\2") + 24, size)
    return bytes(edited)


def test_declared_sizes_that_lie(tmp_path):
    data = zipped(("one", bytes(100_000)))
    (tmp_path / "a.zip").write_bytes(declare(data, 5))
    with pytest.raises(FormatError, match="member 'one' is damaged"):
        read_all(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(declare(data, 200_000))
    with pytest.raises(FormatError, match=r"member 'one' is (damaged|cut off)"):
        read_all(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(declare(zipped(("one", bytes(10)), method=zipfile.ZIP_STORED), 1 << 30))
    with pytest.raises(FormatError, match="is stored, but its 10 bytes are declared as 1073741824"):
        read_all(tmp_path / "a.zip")


def test_members_that_overlap(tmp_path):
    one = zipped(("one", b"1" * 60), ("two", b"2" * 60), method=zipfile.ZIP_STORED)
    edited = bytearray(one)
    second = edited.rfind(b"PK\1\2")
    for offset in (20, 24):  # compressed and plain size
        struct.pack_into("<I", edited, second + offset, len(one))
    (tmp_path / "a.zip").write_bytes(edited)
    with pytest.raises(FormatError, match="its members overlap or reach past"):
        read_all(tmp_path / "a.zip")


def test_too_many_members(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(*((str(index), b"") for index in range(300))))
    with pytest.raises(LimitError, match="has 300 members"):
        read_all(tmp_path / "a.zip")


def test_a_table_of_contents_that_is_too_large(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(*((f"{index:0200}", b"") for index in range(5000))))
    with pytest.raises(LimitError, match="its table of contents is larger than"):
        read_all(tmp_path / "a.zip")


def test_truncation_at_every_byte(tmp_path):
    data = zipped(("one", b"1" * 10), ("two", bytes(range(50))))
    for end in range(len(data)):
        (tmp_path / "a.zip").write_bytes(data[:end])
        with pytest.raises(FormatError, match=r"a\.zip: "):
            read_all(tmp_path / "a.zip")


@settings(max_examples=50)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes(tmp_path_factory, edits):
    path = tmp_path_factory.getbasetemp() / "flipped.zip"
    data = bytearray(zipped(("one", b"1" * 100), ("two", bytes(range(50)))))
    for position, value in edits:
        data[position % len(data)] = value
    path.write_bytes(data)
    try:
        read_all(path)
    except SplatSenseError as error:
        assert str(path) in str(error)  # noqa: PT017  # reading may also succeed
