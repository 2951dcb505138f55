"""A disk that is really full: a small tmpfs; skipped where mounting is not permitted."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from library.color_model import ColorModel
from splatsense.errors import LibraryError
from splatsense.library import Library
from splatsense.library.store import Store
from splatsense.web.settings import WebSettings
from web.conftest import app_client, events_of

SIZE, LEFT = 8 << 20, 400_000  # bytes of the disk, and of it while the ballast is there
ASSETS = 200


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "splatsense-test", str(folder)], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"there is no mount command ({error.strerror})")
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def many(tmp_path, write_blob) -> Path:
    for seed in range(ASSETS):
        write_blob(tmp_path / "many" / f"{seed}.splat", seed=seed, count=8)
    return tmp_path / "many"


def fill(disk: Path, left: int) -> Path:
    """Leave only so many bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as out:
        out.write(bytes(shutil.disk_usage(disk).free - left))
    return ballast


def opened(disk: Path) -> Library:
    return Library(disk / "library", ColorModel(), isolated=False)


def assert_whole(disk: Path, stored: set[str]) -> None:
    with opened(disk) as library:
        report = library.verify(contents=True)
        assert report.problems == report.changed == report.missing == []
        assert stored <= {asset.sha256 for asset in library.assets()}
        assert report.embeddings == report.assets == len(library)


@pytest.mark.parametrize("draw", [False, True])
def test_adding_to_a_full_disk_is_an_error_and_loses_nothing(disk, many, monkeypatch, draw):
    stored, put = set(), Store.put_indexed

    def told(store, item, *rest):
        asset_id = put(store, item, *rest)
        stored.add(item.file.sha256)
        return asset_id

    monkeypatch.setattr(Store, "put_indexed", told)
    with opened(disk) as library:
        library.add(many / "0.splat", progress=False)
        ballast = fill(disk, LEFT)
        with pytest.raises(LibraryError, match=r"(?i)disk is full|no space left.*nothing stored is lost"):
            library.add(many, progress=False, draw=draw)
        assert 1 < len(stored) < ASSETS
        assert len(library.search("red", k=ASSETS)) >= len(stored) - 1, "it can still be searched"
    monkeypatch.undo()
    ballast.unlink()
    assert_whole(disk, stored)
    with opened(disk) as library:
        assert library.add(many, progress=False, draw=draw).skipped >= len(stored)
        assert len(library) == ASSETS
    assert_whole(disk, stored)
    assert not list(disk.rglob("*.tmp"))


def test_the_page_says_so_and_goes_on(disk, many):
    with opened(disk) as library, app_client(library, WebSettings(free_bytes=0)) as client:
        library.add(many / "0.splat", progress=False)
        upload = client.post("/api/uploads").json()["id"]
        ballast = fill(disk, LEFT)
        reply = client.put(f"/api/uploads/{upload}/files", params={"name": "large.ply"}, content=bytes(2 * LEFT))
        assert reply.status_code in (413, 422)
        assert "space" in reply.json()["error"]["message"]
        assert list((disk / "library" / "uploads" / upload).iterdir()) == []
        final = events_of(client, client.post("/api/jobs", json={"path": str(many)}).json()["id"])[-1]
        assert final["status"] == "failed"
        assert "space" in final["message"]
        stored = {asset.sha256 for asset in library.assets()}
        assert client.get("/api/library").json()["assets"] == len(stored)
        assert client.post("/api/search", json={"parts": [{"text": "red"}]}).json()["results"]
        ballast.unlink()
        final = events_of(client, client.post("/api/jobs", json={"path": str(many)}).json()["id"])[-1]
        assert (final["status"], final["failed"]) == ("done", 0)
        assert len(library) == ASSETS
    assert_whole(disk, stored)
