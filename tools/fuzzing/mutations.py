"""Damage: each mutation takes bytes that make sense and gives bytes that make a little less.

Design
- `mutate` first tries to reach inside: zip members, gzip payloads, JSON nodes, the chunks of GLB and safetensors, the pages
  of E57, the header of a PNG and the lines of a text header are changed and packed again with correct lengths and checksums, so
  that the damage arrives behind the first check. Otherwise, and sometimes all the same, raw bytes are changed.
- Everything is drawn from the generator it is given: a seed replays a run.
"""

import contextlib
import gzip
import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from random import Random

from fuzzing.case import Case

SUFFIXES = (".ply", ".splat", ".spz", ".sog", ".ksplat", ".obj", ".glb", ".gltf", ".stl", ".npz", ".safetensors", ".json")
SUFFIXES += (".pcd", ".las", ".laz", ".xyz", ".pts", ".e57", ".PLY", ".txt", "")
INTEGERS = sorted(
    {sign * (1 << bits) + delta for bits in (0, 7, 8, 15, 16, 31, 32, 62, 63) for sign in (1, -1) for delta in (-1, 0, 1)}
)
FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, -1.0, 1e38, -1e38, 3.5e38, 1e-45, 1e308, 1e-320)
WORDS = (*map(str, INTEGERS), "nan", "-inf", "1e400", "-1e-400", "0x10", "1_0", "1.", "", "-", "\u0661", "9" * 400, "x" * 300)
PLY_LINES = (
    "property list uint int bomb", "property list uchar float x", "property double x", "element vertex 0",
    "element face 4294967295", "element empty 999999999999999999", "format ascii 1.0", "format binary_big_endian 1.0",
    "comment " + "x" * 65536, "end_header",
)  # fmt: skip
NAMES = ("../outside", "/absolute", "..\\outside", "a" * 300, "nul\0name", "meta.json", "", ".", "con")
BOMB = 48 << 20
E57_PAGE = 1024


def mutate(case: Case, rng: Random, partners: list[Case]) -> Case:
    """`case` with one to four mutations in one of its files; `partners` are seeds to splice with."""
    name = case.main if rng.random() < 0.85 else rng.choice(sorted(case.files))
    data = case.files[name]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        partner = rng.choice(partners)
        data = mutate_bytes(data, rng, partner.files[partner.main])
    case = case.with_file(name, data)
    return case.renamed("case" + rng.choice(SUFFIXES)) if rng.random() < 0.04 else case


def mutate_bytes(data: bytes, rng: Random, partner: bytes) -> bytes:
    """`data` after one mutation, inside its container where it is one."""
    if rng.random() < 0.75:
        for starts, change in CONTAINERS:
            if starts(data):
                with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError,
                                         IndexError, RuntimeError):  # fmt: skip
                    return change(data, rng, partner)
    return rng.choice(RAW)(bytearray(data), rng, partner)


def _flip(data: bytearray, rng: Random, _: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite_number(data: bytearray, rng: Random, _: bytes) -> bytes:
    order = rng.choice("<>")
    if rng.random() < 0.6:
        width = rng.choice((1, 2, 4, 4, 8))
        value = (rng.choice(INTEGERS) & ((1 << 8 * width) - 1)).to_bytes(width, "little" if order == "<" else "big")
    else:
        number = rng.choice(FLOATS)
        value = struct.pack(order + "f", number) if abs(number) < 3e38 or number != number else struct.pack(order + "d", number)
    limit = rng.choice((64, 1024, len(data)))  # headers matter most
    at = rng.randrange(max(1, min(limit, len(data))))
    at = at // 4 * 4 if rng.random() < 0.5 else at
    data[at : at + len(value)] = value
    return bytes(data)


def _truncate(data: bytearray, rng: Random, _: bytes) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def _cut(data: bytearray, rng: Random, _: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 4, 16, 256))]
    return bytes(data)


def _repeat(data: bytearray, rng: Random, _: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 16, 256))]
    return bytes(data[:start] + piece * rng.choice((2, 3, 100)) + data[start:])


def _append(data: bytearray, rng: Random, _: bytes) -> bytes:
    return bytes(data) + rng.randbytes(rng.choice((1, 3, 32, 4096)))


def _blank(data: bytearray, rng: Random, _: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 4, 16, 256)))
    data[start:end] = bytes([rng.choice((0, 255, 32, 10))]) * (end - start)
    return bytes(data)


def _splice(data: bytearray, rng: Random, partner: bytes) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)]) + partner[rng.randrange(len(partner) + 1) :]


RAW = (
    _flip,
    _flip,
    _overwrite_number,
    _overwrite_number,
    _overwrite_number,
    _truncate,
    _cut,
    _repeat,
    _append,
    _blank,
    _splice,
)


def _change_lines(data: bytes, rng: Random, _: bytes) -> bytes:
    """Edit one line of the text that `data` begins with."""
    text = _text_prefix(data)
    lines = text.split(b"\n")
    at = rng.randrange(len(lines))
    words = lines[at].split(b" ")
    match rng.randrange(9):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines.insert(at, rng.choice(PLY_LINES).encode())
        case 4:
            return text.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b" \n"))) + data[len(text) :]
        case 5:
            words[rng.randrange(len(words))] = rng.choice(lines).split(b" ")[0]
            lines[at] = b" ".join(words)
        case 6:
            lines[at] += rng.choice((b" 1", b"\xff\xfe", b"\0", b"\x85", " \u2028x".encode(), b" " * 70000))
        case _:  # the last word of a line is where counts and names are
            words[-1 if rng.random() < 0.5 else rng.randrange(len(words))] = rng.choice(WORDS).encode()
            lines[at] = b" ".join(words)
    return b"\n".join(lines) + data[len(text) :]


def _text_prefix(data: bytes) -> bytes:
    found = re.match(rb"(?:[\t\r\x20-\x7e]{0,4000}\n){2,3000}", data)
    return found[0] if found else b""


def _change_json(data: bytes, rng: Random, _: bytes) -> bytes:
    """Replace, remove or multiply one node of a JSON document, keeping the document valid more often than not."""
    document = json.loads(data)
    holder: dict | list = [document]
    root = holder
    key: str | int = 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    match rng.randrange(8):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.extend([holder[key]] * rng.choice((1, 1000)))
        case 2:
            holder[key] = rng.choice((None, True, [], {}, [[]], "", *NAMES))
        case 3:
            return data[:-1] + b"[" * rng.choice((100, 100_000))
        case 4:
            holder[key] = rng.choice(FLOATS)
        case _:
            holder[key] = rng.choice(INTEGERS)
    return json.dumps(root[0] if root else {}).encode()


def _change_zip(data: bytes, rng: Random, partner: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > BOMB:
            raise ValueError("has been made a bomb before")
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(12):
        case 0:
            del members[at]
        case 1:
            members.append(members[at])
        case 2:
            members[at] = (rng.choice(NAMES), content)
        case 3 if rng.random() < 0.1:
            members[at] = (name, bytes(BOMB))
        case 4:
            members[at] = (name, members[rng.randrange(len(members))][1])
        case _:
            members[at] = (name, mutate_bytes(content, rng, partner))
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name occurs twice is meant
        for name, content in members:
            info = zipfile.ZipInfo(name or "empty")
            info.external_attr = 0o120777 << 16 if rng.random() < 0.03 else 0o644 << 16  # now and then a symbolic link
            info.compress_type = method
            archive.writestr(info, content)
    return target.getvalue()


def _change_gzip(data: bytes, rng: Random, partner: bytes) -> bytes:
    payload = zlib.decompressobj(31).decompress(data, BOMB)
    if len(payload) == BOMB:
        raise ValueError("has been made a bomb before")
    if rng.random() < 0.02:
        return gzip.compress(payload + bytes(BOMB), 6, mtime=0)
    return gzip.compress(mutate_bytes(payload, rng, partner), 1, mtime=0) + (data if rng.random() < 0.03 else b"")


def _change_glb(data: bytes, rng: Random, partner: bytes) -> bytes:
    version, _, length = struct.unpack_from("<III", data, 4)
    text, rest = data[20 : 20 + length], data[20 + length :]
    if rng.random() < 0.7:
        text = _change_json(text, rng, partner)
    else:
        rest = rest[:8] + mutate_bytes(rest[8:], rng, partner)
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", version, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def _change_safetensors(data: bytes, rng: Random, partner: bytes) -> bytes:
    (length,) = struct.unpack_from("<Q", data)
    text = _change_json(data[8 : 8 + length], rng, partner)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _change_png(data: bytes, rng: Random, _: bytes) -> bytes:
    field = bytearray(data[12:29])
    struct.pack_into(">I", field, rng.choice((4, 8)), rng.choice((0, 1, 30_000, 100_000, 1 << 31, (1 << 32) - 1)))
    return data[:12] + field + struct.pack(">I", zlib.crc32(field)) + data[33:]


def _change_e57(data: bytes, rng: Random, partner: bytes) -> bytes:
    """E57 has a checksum at the end of each page; those of the changed pages are made right."""
    pages = [data[at : at + E57_PAGE - 4] for at in range(0, len(data), E57_PAGE)]
    changed = rng.choice(RAW)(bytearray(b"".join(pages)), rng, partner)
    pages = [changed[at : at + E57_PAGE - 4] for at in range(0, len(changed), E57_PAGE - 4)]
    return b"".join(page + _crc32c(page).to_bytes(4, "big") for page in pages)


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc32c_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC32C = [_crc32c_entry(value) for value in range(256)]

CONTAINERS = (
    (lambda data: data[:4] == b"PK\3\4", _change_zip),
    (lambda data: data[:3] == b"\x1f\x8b\x08", _change_gzip),
    (lambda data: data[:4] == b"glTF", _change_glb),
    (lambda data: data[:8] == b"ASTM-E57", _change_e57),
    (lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _change_png),
    (lambda data: data[8:9] == b"{" and data[4:8] == bytes(4), _change_safetensors),
    (lambda data: data[:1] in (b"{", b"["), _change_json),
    (lambda data: bool(_text_prefix(data)), _change_lines),
)
"""Formats that are changed from within: how they are known, and the change. The first that fits serves."""
