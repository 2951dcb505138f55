"""What models see in scenes, through the API."""

# ruff: noqa: F811

import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch

from segmentation_scenes import CHAIR, FLOOR
from splatsense.cli import main
from splatsense.errors import CheckpointError
from splatsense.gaussian_cross.model import save_backbone
from splatsense.io import load
from splatsense.labels import SCANNET20
from splatsense.library import Library
from splatsense.segmentation.export import distinct_colors
from splatsense.segmentation.segment import heat_colors, similarity
from splatsense.web.scene_cache import SceneCache
from splatsense.web.scene_models import SceneModels
from splatsense.web.scenes import cosines
from splatsense.web.settings import WebSettings
from web.conftest import CHOSEN, app_client, events_of, wait_until
from web.scene_fixtures import (  # noqa: F401
    ROOM,
    SETTINGS,
    room_file,
    room_library,
    scene_library,
    scene_model,
    scene_models,
    trained,
)

SCENE = "/api/assets/1/scene"
CHAIR_POINT = int(np.flatnonzero(ROOM.semantic20 == CHAIR)[40])
FLOOR_POINT = int(np.flatnonzero(ROOM.semantic20 == FLOOR)[900])


def colors_of(reply) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return np.frombuffer(reply.content, np.uint8).reshape(-1, 3)


def computed(client, what: str) -> dict:
    return events_of(client, client.post(SCENE, json={"what": what}).json()["id"])[-1]


def test_similarity_is_that_of_the_command(scene_library, scene_models, scene_model, room_file, tmp_path):
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        about = client.get(SCENE).json()
        assert about["is_scene"]
        assert client.get("/api/assets/1").json()["is_scene"]
        assert about["similarity"] == {"model": "room", "reason": "", "ready": False, "job": None}
        reply = client.get(f"{SCENE}/similarity", params={"gaussian": 0})
        assert reply.status_code == 409
        assert reply.json()["error"]["id"]
        final = computed(client, "similarity")
        assert (final["status"], final["kind"], final["done"]) == ("done", "scene", final["total"])
        assert final["total"] > 10
        assert client.get(SCENE).json()["similarity"]["ready"]
        reply = client.get(f"{SCENE}/similarity", params={"gaussian": CHAIR_POINT})
        shown = colors_of(reply)
    x, y, z = ROOM.coord[CHAIR_POINT].tolist()
    arguments = ["--point", f"{x},{y},{z}", "--model", str(scene_model), "--out", str(tmp_path / "out")]
    assert main(["similar", str(room_file), *arguments]) == 0
    data = (tmp_path / "out" / "similar.ply").read_bytes().split(b"end_header\n")[1]
    values = np.frombuffer(data, [("xyz", "<f4", 3), ("rgb", "u1", 3), ("similarity", "<f4")])
    # the command has the normals of the file, the page those of discs, which look to the middle
    assert np.corrcoef(shown[:, 1].astype(float), values["rgb"][:, 1].astype(float))[0, 1] > 0.8
    assert shown[CHAIR_POINT].tolist() == [240, 249, 33]
    chairs, floor = shown[ROOM.semantic20 == CHAIR, 1].mean(), shown[ROOM.semantic20 == FLOOR, 1].mean()
    assert chairs > floor + 60, "yellow is like it"
    assert float(reply.headers["X-Darkest"]) < 0.9


def test_half_precision_and_blocks_give_the_cosines():
    random = np.random.default_rng(0)
    features = random.normal(size=(70_000, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = cosines(features.astype(np.float16), features[7].astype(np.float16))
    assert found == pytest.approx(features @ features[7], abs=2e-3)
    assert np.abs(found).max() <= 1


def test_classes_and_instances_are_told(scene_library, scene_models):
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        assert client.get(f"{SCENE}/legend").status_code == 409
        assert client.get(f"{SCENE}/labels/classes").status_code == 409
        assert computed(client, "segmentation")["status"] == "done"
        shown = colors_of(client.get(f"{SCENE}/labels/classes"))
        right = (shown == SCANNET20.colors[ROOM.semantic20]).all(1).mean()
        assert right > 0.8, "the model has learned this room"
        legend = client.get(f"{SCENE}/legend").json()
        assert {"wall", "floor", "chair", "table"} <= {entry["name"] for entry in legend["classes"]}
        assert sum(entry["share"] for entry in legend["classes"]) == pytest.approx(1, abs=0.01)
        found = client.get(f"{SCENE}/label", params={"gaussian": CHAIR_POINT}).json()
        assert found["class"] == "chair"
        instances = colors_of(client.get(f"{SCENE}/labels/instances"))
        assert instances[FLOOR_POINT].tolist() == [60, 60, 60]
        assert instances[CHAIR_POINT].tolist() == distinct_colors(found["instance"] + 1)[-1].tolist()
        assert len(legend["instances"]) >= 2


def test_classes_of_a_user_s_own_have_their_names_and_colours(scene_library, scene_model, tmp_path):
    folder = shutil.copytree(scene_model, tmp_path / "own")
    card = json.loads((folder / "config.json").read_text())
    own = {
        "labels": "mine",
        "classes": [f"my {name}" for name in card["classes"]],
        "leave_out": [],
        "colors": {"my wall": "#010203"},
    }
    (folder / "config.json").write_text(json.dumps(card | own))
    models = SceneModels(segmentation=str(folder))
    with Library(scene_library) as library, app_client(library, SETTINGS, models) as client:
        computed(client, "segmentation")
        found = {entry["name"]: entry["color"] for entry in client.get(f"{SCENE}/legend").json()["classes"]}
        assert {"my wall", "my floor", "my chair", "my table"} <= found.keys()
        assert found["my wall"] == "#010203"
        assert len(set(found.values())) == len(found)
        label = client.get(f"{SCENE}/label", params={"gaussian": CHAIR_POINT}).json()
        assert label["class"] == "my chair"


def test_what_is_computed_is_kept_for_the_next_server(scene_library, scene_models):
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        computed(client, "similarity")
        before = colors_of(client.get(f"{SCENE}/similarity", params={"gaussian": 5}))
        again = computed(client, "similarity")
        assert (again["status"], again["total"]) == ("done", 0), "it is there already"
    (kept,) = (scene_library / "scenes").iterdir()
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        assert client.get(SCENE).json()["similarity"]["ready"]
        assert np.array_equal(colors_of(client.get(f"{SCENE}/similarity", params={"gaussian": 5})), before)
    kept.write_bytes(kept.read_bytes()[:-200])
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        assert client.get(f"{SCENE}/similarity", params={"gaussian": 5}).status_code == 409
        assert not kept.exists()
        assert computed(client, "similarity")["status"] == "done"
        assert library.verify().problems == []


def test_a_job_is_cancelled_between_layers_and_asked_for_once(scene_library, scene_models):
    waiting, may_go = threading.Event(), threading.Event()

    def wait(module, inputs):
        waiting.set()
        assert may_go.wait(60)

    layer = scene_models.backbone().network.up[0]
    hook = layer.register_forward_pre_hook(wait)
    try:
        with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
            job = client.post(SCENE, json={"what": "similarity"}).json()["id"]
            assert client.post(SCENE, json={"what": "similarity"}).json()["id"] == job
            assert waiting.wait(60)
            assert client.get(SCENE).json()["similarity"]["job"] == job
            assert 0 < client.get(f"/api/jobs/{job}").json()["done"] < client.get(f"/api/jobs/{job}").json()["total"]
            assert client.delete(f"/api/jobs/{job}").json()["status"] == "cancelling"
            may_go.set()
            wait_until(lambda: client.get(f"/api/jobs/{job}").json()["status"] == "cancelled")
            assert client.get(SCENE).json()["similarity"] == {"model": "room", "reason": "", "ready": False, "job": None}
            hook.remove()
            assert computed(client, "similarity")["status"] == "done"
    finally:
        hook.remove()


def test_without_models_the_reason_is_said(scene_library, tmp_path, monkeypatch):
    monkeypatch.setattr("splatsense.web.scene_models.BACKBONES", ("no-such-backbone",))
    monkeypatch.setattr("splatsense.web.scene_models.HEADS", ("no-such-head",))
    with Library(scene_library) as library, app_client(library, SETTINGS, SceneModels()) as client:
        about = client.get(SCENE).json()
        assert "--scene-model FOLDER" in about["similarity"]["reason"]
        assert "--segmentation-model FOLDER" in about["segmentation"]["reason"]
        reply = client.post(SCENE, json={"what": "similarity"})
        assert (reply.status_code, reply.json()["error"]["message"]) == (422, about["similarity"]["reason"])
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        SceneModels(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        SceneModels(segmentation=str(tmp_path / "nothing"))


def test_the_segmentation_model_s_backbone_serves_where_there_is_no_other(scene_model, monkeypatch):
    monkeypatch.setattr("splatsense.web.scene_models.BACKBONES", ("no-such-backbone",))
    models = SceneModels(segmentation=str(scene_model))
    assert models.similarity == models.segmentation
    assert models.backbone().voxel == 0.1


def test_a_card_that_changes_makes_another_model(scene_model, tmp_path):
    folder = shutil.copytree(scene_model, tmp_path / "model")
    before = SceneModels(segmentation=str(folder)).segmentation.hash
    card = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(card | {"voxel": 2 * card["voxel"]}))
    assert SceneModels(segmentation=str(folder)).segmentation.hash != before


def test_a_backbone_alone_measures_likeness(scene_library, tmp_path):
    save_backbone(tmp_path / "backbone", trained(1).backbone, "mine", 0.1, {})
    models = SceneModels(str(tmp_path / "backbone"))
    assert models.similarity.name == "mine"
    with pytest.raises(CheckpointError, match="is no segmentation model"):
        SceneModels(segmentation=str(tmp_path / "backbone"))
    with Library(scene_library) as library, app_client(library, SETTINGS, models) as client:
        assert computed(client, "similarity")["status"] == "done"
        assert len(colors_of(client.get(f"{SCENE}/similarity", params={"gaussian": 3}))) == len(ROOM)


def test_objects_and_very_large_scenes_are_refused(indexed, scene_library, scene_models):
    with Library(indexed) as library, app_client(library, SETTINGS, scene_models) as client:
        about = client.get(SCENE).json()
        assert not about["is_scene"]
        assert "is taken for an object" in about["similarity"]["reason"]
        assert client.post(SCENE, json={"what": "segmentation"}).status_code == 422
        assert client.get(f"/api/assets/{len(CHOSEN) + 1}/scene").status_code == 404
    settings = WebSettings(scene_gaussians=9_000, scene_most=9_500)
    with Library(scene_library) as library, app_client(library, settings, scene_models) as client:
        assert "thin it out" in client.post(SCENE, json={"what": "similarity"}).json()["error"]["message"]


@pytest.mark.parametrize("gaussian", ["-1", "99999999", "1e3", "x", str(2**70)])
def test_a_gaussian_that_is_none_is_an_error(scene_library, scene_models, gaussian):
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        computed(client, "similarity")
        reply = client.get(f"{SCENE}/similarity", params={"gaussian": gaussian})
        assert reply.status_code == 422
        assert reply.json()["error"]["message"]


def test_a_file_that_is_gone_fails_the_job(scene_library, scene_models, room_file):
    away = room_file.rename(room_file.with_suffix(".away"))
    with Library(scene_library) as library, app_client(library, SETTINGS, scene_models) as client:
        final = computed(client, "similarity")
        away.rename(room_file)
        assert final["status"] == "failed"
        assert "the file is gone" in final["message"]


def test_the_cache_keeps_to_its_size_and_the_newest(tmp_path):
    cache = SceneCache(tmp_path, 3_000)
    for number in range(4):
        cache.put(f"scene{number}", {"a": np.full(1_000, number, np.uint8)})
        os.utime(tmp_path / "scenes" / f"scene{number}.npz", (number, number))
    assert sorted(path.stem for path in (tmp_path / "scenes").iterdir()) == ["scene2", "scene3"]
    again = SceneCache(tmp_path, 3_000)
    assert again.get("scene0") is None
    assert again.get("scene2")["a"].tolist() == [2] * 1_000
    again.put("scene9", {"a": np.zeros(1_000, np.uint8)})
    assert sorted(path.stem for path in (tmp_path / "scenes").iterdir()) == ["scene2", "scene9"], "scene3 was used longest ago"
    again.put("large", {"a": np.zeros(9_000, np.uint8)})
    assert [path.stem for path in (tmp_path / "scenes").iterdir()] == ["large"]


def test_a_cache_without_a_folder_to_write_to_keeps_what_it_can(tmp_path, caplog):
    (tmp_path / "scenes").write_text("in the way")
    cache = SceneCache(tmp_path, 1_000)
    cache.put("a", {"a": np.arange(3)})
    assert cache.get("a")["a"].tolist() == [0, 1, 2]
    assert "kept in memory only" in caplog.text


def test_scenes_are_stood_up_for_the_viewer_and_objects_stay(scene_library, indexed, tmp_path):
    def shown(path, settings=SETTINGS) -> np.ndarray:
        with Library(path) as library, app_client(library, settings) as client:
            (tmp_path / "view.spz").write_bytes(client.get("/api/assets/1/view.spz").content)
            return load(tmp_path / "view.spz").means.numpy()

    room = ROOM.coord - (ROOM.coord.max(0) + ROOM.coord.min(0)) / 2
    room *= 2 / np.ptp(room, axis=0).max()
    assert shown(scene_library) == pytest.approx(room[:, [1, 2, 0]], abs=0.01)
    assert shown(scene_library, WebSettings()) == pytest.approx(room, abs=0.01), "too few Gaussians for a scene"
    with Library(indexed) as library:
        thing = load(library.asset(1).path).normalized(0.002).means.numpy()
    assert shown(indexed, WebSettings(scene_gaussians=100)) == pytest.approx(thing, abs=0.01), "an object"


def test_heat_is_that_of_the_command(scene_models):
    from splatsense.segmentation.points import points_of_scene
    from splatsense.segmentation.predict import voxel_features

    model, points = scene_models.backbone(), points_of_scene(ROOM)
    features, voxel = voxel_features(model.network, points, model.voxel)
    features = torch.nn.functional.normalize(features, dim=1).half().numpy()
    ours = cosines(features, features[voxel[3]])[voxel.numpy()]
    theirs = similarity(model.network, points, model.voxel, 3)
    assert ours == pytest.approx(theirs, abs=3e-3)
    assert np.abs(heat_colors(ours).astype(int) - heat_colors(theirs)).max() < 12


def test_a_cache_that_may_only_be_read_serves(tmp_path, monkeypatch):
    SceneCache(tmp_path, 1_000).put("a", {"a": np.arange(3)})
    monkeypatch.setattr("os.utime", refused)
    assert SceneCache(tmp_path, 1_000).get("a")["a"].tolist() == [0, 1, 2]
    (tmp_path / "scenes" / "a.npz").write_bytes(b"damaged")
    monkeypatch.setattr("pathlib.Path.unlink", refused)
    assert SceneCache(tmp_path, 1_000).get("a") is None


def refused(*_, **__):
    raise PermissionError(1, "Operation not permitted")
