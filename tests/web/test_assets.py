import io

import numpy as np
import pytest
import torch
from PIL import Image

import splatsense
from splatsense.info import file_info
from splatsense.io import save
from splatsense.library import Library
from splatsense.pictures import OUTLIER_FRACTION
from splatsense.web.catalogue import project
from splatsense.web.conversions import FORMATS
from splatsense.web.routes.assets import drawing
from splatsense.web.settings import WebSettings
from web.conftest import CHOSEN, OBJECTS, events_of


def asset_named(client, name: str) -> dict:
    results = client.post("/api/search", json={}).json()["results"]
    return next(asset for asset in results if asset["name"] == name)


def test_an_asset_is_described(shared_client, objects):
    asset = shared_client.get(f"/api/assets/{asset_named(shared_client, 'oak chair')['id']}").json()
    path = objects / "furniture" / "oakChair.splat"
    assert (asset["file"], asset["folder"], asset["bytes"]) == (path.name, str(path.parent), path.stat().st_size)
    assert asset["gaussians"] == len(splatsense.load(path))
    assert asset["tags"][0]["label"] == "chair"
    assert asset["is_scene"] is False


def test_tags_are_those_of_the_library(shared_client, indexed):
    with Library(indexed) as library:
        for asset in library.assets():
            label, probability = library.tags(asset, k=1)[0]
            tag = shared_client.get(f"/api/assets/{asset.id}").json()["tags"][0]
            assert (tag["label"], tag["probability"]) == (label, pytest.approx(probability, abs=1e-3))


def test_neighbours_leave_out_the_asset_itself(shared_client):
    chair = asset_named(shared_client, "oak chair")
    found = shared_client.get(f"/api/assets/{chair['id']}/neighbours", params={"limit": 4}).json()
    assert len(found) == 4
    assert chair["id"] not in [asset["id"] for asset in found]
    assert found[0]["name"] == "plastic chair"
    scores = [asset["score"] for asset in found]
    assert scores == sorted(scores, reverse=True)


def test_statistics_are_those_of_the_command_info(shared_client, objects):
    asset = asset_named(shared_client, "sofa")
    expected = file_info(objects / "furniture" / "sofa.splat").to_json()
    del expected["path"]
    assert shared_client.get(f"/api/assets/{asset['id']}/statistics").json() == expected


def test_a_thumbnail_that_is_there_does_not_wait_for_one_that_is_drawn(shared_client):
    with drawing:
        assert shared_client.get("/api/assets/1/thumbnail").status_code == 200


def test_a_thumbnail_is_a_picture_that_may_be_kept(shared_client):
    reply = shared_client.get("/api/assets/1/thumbnail")
    assert "immutable" in reply.headers["cache-control"]
    with Image.open(io.BytesIO(reply.content)) as image:
        assert (image.format, image.size) == ("WEBP", (256, 256))
        assert np.asarray(image.convert("L")).std() > 10


def test_the_viewer_gets_the_asset_centred_with_a_half_extent_of_one(shared_client, objects, tmp_path):
    asset = asset_named(shared_client, "fork lift")
    (tmp_path / "view.spz").write_bytes(shared_client.get(f"/api/assets/{asset['id']}/view.spz").content)
    shown = splatsense.load(tmp_path / "view.spz")
    expected = splatsense.load(objects / "things" / "forkLift.splat").normalized(OUTLIER_FRACTION)
    assert np.allclose(shown.means.numpy(), expected.means.numpy(), atol=1e-3)


def test_the_viewer_gets_the_asset_as_it_was_said_to_stand(client, objects, tmp_path):
    path = objects / "things" / "forkLift.splat"
    before = asset_named(client, "fork lift")
    picture = client.get(f"/api/assets/{before['id']}/thumbnail").content
    assert (before["up"], client.get(f"/api/assets/{before['id']}/view.spz").status_code) == (None, 200)
    library = client.app.state.services.library
    assert library.add(path, progress=False, up="-z").indexed == 1
    client.app.state.services.catalogue.expire()
    asset = asset_named(client, "fork lift")
    assert (asset["id"], asset["up"], asset["bounds"]) == (before["id"], "-z", before["bounds"])
    assert asset["version"] != before["version"]
    assert client.get(f"/api/assets/{asset['id']}/thumbnail").content != picture
    (tmp_path / "view.spz").write_bytes(client.get(f"/api/assets/{asset['id']}/view.spz").content)
    expected = splatsense.load(path).normalized(OUTLIER_FRACTION).means.numpy()
    assert np.allclose(splatsense.load(tmp_path / "view.spz").means.numpy()[:, 1], -expected[:, 2], atol=1e-3)
    assert client.get(f"/api/assets/{asset['id']}/file").content == path.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_downloads_in_every_format_can_be_read_again(shared_client, tmp_path, suffix):
    asset = asset_named(shared_client, "oak table")
    reply = shared_client.get(f"/api/assets/{asset['id']}/file", params={"format": suffix})
    assert reply.headers["content-disposition"] == f'attachment; filename="oakTable{suffix}"'
    (tmp_path / f"a{suffix}").write_bytes(reply.content)
    assert len(splatsense.load(tmp_path / f"a{suffix}")) == asset["gaussians"]


def test_the_original_can_be_downloaded_whole_and_in_ranges(shared_client, objects):
    asset = asset_named(shared_client, "sofa")
    content = (objects / "furniture" / "sofa.splat").read_bytes()
    address = f"/api/assets/{asset['id']}/file"
    assert shared_client.get(address).content == content
    part = shared_client.get(address, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert shared_client.get(address, headers={"range": f"bytes={len(content)}-"}).status_code == 416


def test_a_format_that_cannot_be_written_is_an_error(shared_client):
    for suffix in (".exe", ".gltf", "../x.ply", ""):
        reply = shared_client.get("/api/assets/1/file", params={"format": suffix})
        assert reply.status_code == 422, suffix


@pytest.mark.parametrize("what", ["", "/neighbours", "/statistics", "/thumbnail", "/view.spz", "/file"])
def test_an_unknown_asset_is_not_found(shared_client, what):
    for asset_id in ("999999", "-1", "0"):
        reply = shared_client.get(f"/api/assets/{asset_id}{what}")
        assert (reply.status_code, reply.json()["error"]["status"]) == (404, 404)


@pytest.mark.parametrize("asset_id", ["..%2f..", "1/..%2f..%2fetc", "%00", "1%00", "1e3", "9" * 40, "-" + "9" * 40])
def test_an_id_that_is_none_is_refused(shared_client, asset_id):
    assert shared_client.get(f"/api/assets/{asset_id}").status_code in (404, 422)


def test_an_asset_whose_file_is_gone_says_so(tmp_path, objects):
    import shutil

    from web.conftest import app_client

    shutil.copy(objects / "things" / "basketball.splat", tmp_path / "ball.splat")
    with Library(tmp_path / "library") as library, app_client(library) as client:
        library.add(tmp_path / "ball.splat", progress=False)
        (tmp_path / "ball.splat").unlink()
        for what in ("thumbnail", "statistics", "view.spz", "file"):
            reply = client.get(f"/api/assets/1/{what}")
            assert reply.status_code == 410
            assert "ball.splat: the file is gone" in reply.json()["error"]["message"]
        shutil.copy(objects / "furniture" / "sofa.splat", tmp_path / "ball.splat")
        for what in ("thumbnail", "statistics", "view.spz", "file"):
            reply = client.get(f"/api/assets/1/{what}")
            assert reply.status_code == 410
            assert "ball.splat: has changed" in reply.json()["error"]["message"]
        (tmp_path / "secret").write_bytes(b"of nobody's library")
        (tmp_path / "ball.splat").unlink()
        (tmp_path / "ball.splat").symlink_to(tmp_path / "secret")
        assert client.get("/api/assets/1/file").status_code == 410
        assert client.get("/api/assets/1").status_code == 200


def test_the_map_shows_every_asset_as_its_principal_components_say(shared_client, indexed):
    shown = shared_client.get("/api/map").json()
    with Library(indexed) as library:
        index = library.embeddings()
    assert shown["ids"] == index.ids.tolist()
    assert len(shown["names"]) == len(CHOSEN)
    assert shown["versions"] == [shared_client.get(f"/api/assets/{asset_id}").json()["version"] for asset_id in shown["ids"]]
    centred = index.vectors - index.vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    positions = np.stack([shown["x"], shown["y"]], axis=1)
    scaled = positions * np.abs(expected).max()
    assert np.allclose(np.abs(scaled), np.abs(expected), atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_assets_have_a_place_on_the_map_too(count):
    positions = project(np.eye(3, dtype=np.float32)[:count])
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()
    assert np.abs(positions).max() <= 1


def test_statistics_are_read_in_another_process(client, tmp_path, monkeypatch):
    """With what its reader says: here a point that is not finite."""
    (tmp_path / "rock.xyz").write_text("nan 0 0\n" + "".join(f"{i} {i % 7} {i % 5}\n" for i in range(50)))
    events_of(client, client.post("/api/jobs", json={"path": str(tmp_path / "rock.xyz")}).json()["id"])
    expected = file_info(tmp_path / "rock.xyz").to_json()
    del expected["path"]
    asset = asset_named(client, "rock")
    monkeypatch.setattr("splatsense.io.load", None)  # nothing is read here
    reply = client.get(f"/api/assets/{asset['id']}/statistics")
    assert reply.json() == expected
    assert "left out 1 of 51 points" in expected["warnings"][0]


def test_a_file_that_is_being_sent_stays(indexed):
    from splatsense.web.conversions import Conversions

    with Library(indexed) as library:
        conversions = Conversions(library, WebSettings(cache_bytes=1))
        first, second = library.assets()[:2]
        being_sent, used = conversions.view(first), conversions.view(second)
        conversions.give_back(used)
        assert being_sent.exists()
        conversions.give_back(being_sent)
        assert [path.exists() for path in (being_sent, used)] == [False, True]
        conversions.close()


def test_what_was_sent_is_given_back(client, indexed):
    conversions = client.app.state.services.conversions
    for address in ("view.spz", "file?format=.ply"):
        assert client.get(f"/api/assets/1/{address}").status_code == 200
    assert conversions._lent.total() == 0


def test_many_conversions_keep_to_their_limit(indexed):
    from splatsense.web.conversions import Conversions

    with Library(indexed) as library:
        conversions = Conversions(library, WebSettings(cache_bytes=150_000))
        paths = []
        for asset in library.assets():
            paths.append(conversions.view(asset))
            conversions.give_back(paths[-1])
        kept = [path for path in paths if path.exists()]
        assert sum(path.stat().st_size for path in kept) <= 150_000
        assert paths[-1] in kept
        assert conversions.view(library.assets()[0]).exists()
        conversions.close()
        assert not paths[-1].exists()


def test_a_floater_far_away_does_not_spoil_the_view(client, tmp_path):
    """SPZ holds coordinates up to 8 million, and its steps grow with the largest."""
    gaussians = splatsense.load(OBJECTS / "sofa.splat")
    gaussians.means[0] = torch.tensor([1e9, 0.0, 0.0])
    save(gaussians, tmp_path / "haunted.ply")
    events_of(client, client.post("/api/jobs", json={"path": str(tmp_path / "haunted.ply")}).json()["id"])
    reply = client.get(f"/api/assets/{asset_named(client, 'haunted')['id']}/view.spz")
    assert reply.status_code == 200, reply.text
    (tmp_path / "view.spz").write_bytes(reply.content)
    shown, expected = splatsense.load(tmp_path / "view.spz"), gaussians.normalized(OUTLIER_FRACTION)
    torch.testing.assert_close(shown.means[1:], expected.means[1:], rtol=0, atol=2e-4)
    assert (len(shown), float(shown.opacities[0])) == (len(gaussians), 0)
