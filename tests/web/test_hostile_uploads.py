"""Files made to do harm, sent as a stranger would: an error that names them, and a server that goes on."""

import gc
import gzip
import io
import struct
import zipfile

import pytest

from splatsense import load
from splatsense.io import WRITERS, save
from web.conftest import CHOSEN, OBJECTS, events_of

MEGABYTE = 1 << 20
MOST_GROWTH = 150 * MEGABYTE


def ply_of_many() -> bytes:
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {2**40}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    return header.encode() + b"end_header\n" + bytes(64)


def spz_bomb() -> bytes:
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, 9_000_000, 0, 12, 0, 0)
    return gzip.compress(header + bytes(100 * MEGABYTE), 1)


def sog_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("meta.json", b" " * (100 * MEGABYTE))
    return buffer.getvalue()


def sog_that_leads_out() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.txt", b"evil")
        archive.writestr("meta.json", b"{}")
    return buffer.getvalue()


HOSTILE = {
    "many.ply": ply_of_many,
    "bomb.spz": spz_bomb,
    "bomb.sog": sog_bomb,
    "out.sog": sog_that_leads_out,
    "include.obj": lambda: b"mtllib /etc/passwd\nmtllib ../../../etc/passwd\nv 0 0 0\nf 1 1 1\n",
    "remote.gltf": lambda: b'{"asset":{"version":"2.0"},"buffers":[{"uri":"http://evil.example/a.bin","byteLength":4}]}',
    "local.gltf": lambda: b'{"asset":{"version":"2.0"},"buffers":[{"uri":"../../../../etc/passwd","byteLength":4}]}',
    "deep.gltf": lambda: b"[" * 200_000,
    "pickle.npz": lambda: b"PK\x03\x04 nonsense",
    "empty.splat": lambda: b"",
    "odd.splat": lambda: b"x" * 33,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_an_error_and_the_server_goes_on(shared_client, name):
    content = HOSTILE[name]()
    before = resident_bytes()
    reply = shared_client.post("/api/queries", params={"name": name}, content=content)
    assert reply.status_code in (413, 422), reply.text
    assert name in reply.json()["error"]["message"]
    assert "root:" not in reply.text
    assert shared_client.get("/api/library").json()["assets"] == len(CHOSEN)
    del content, reply
    gc.collect()
    assert resident_bytes() - before < MOST_GROWTH


def test_hostile_files_uploaded_together_are_all_reported_and_deleted(client, library_copy):
    identity = client.post("/api/uploads").json()["id"]
    for name, content in HOSTILE.items():
        reply = client.put(f"/api/uploads/{identity}/files", params={"name": name}, content=content())
        assert reply.status_code == 201, name
    job = client.post(f"/api/uploads/{identity}/index").json()["id"]
    final = events_of(client, job)[-1]
    assert final["status"] == "done"
    assert {failure["file"] for failure in final["failures"]} == HOSTILE.keys()
    assert not (library_copy / "uploads" / identity).exists()
    assert client.get("/api/library").json()["assets"] == len(CHOSEN)


@pytest.mark.parametrize("suffix", [suffix for suffix in WRITERS if suffix != ".gltf"])
def test_files_that_are_cut_off_or_changed_never_end_the_server(shared_client, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save(load(OBJECTS / "stool.splat")[:200], path)
    whole = path.read_bytes()
    for cut in (1, len(whole) // 3, len(whole) - 1):
        reply = shared_client.post("/api/queries", params={"name": path.name}, content=whole[:cut])
        assert reply.status_code in (413, 422), cut
    for at in range(7, len(whole), len(whole) // 6):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        reply = shared_client.post("/api/queries", params={"name": path.name}, content=changed)
        assert reply.status_code in (201, 413, 422), at


def resident_bytes() -> int:
    with open("/proc/self/statm") as opened:
        return int(opened.read().split()[1]) * 4096
