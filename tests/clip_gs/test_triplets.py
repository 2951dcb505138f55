import hashlib
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import splatsense.clip_gs.triplets as triplets_module
from splatsense.clip_gs.triplets import TripletConfig, make_triplet, make_triplets, object_seed
from splatsense.clip_gs.views import has_colors, mesh_radius, view_cameras
from splatsense.corpora import CorpusObject
from splatsense.errors import DataError, LimitError
from splatsense.files import open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io.mesh import GREY
from splatsense.io.surface import mesh_to_gaussians
from splatsense.mesh import Material
from splatsense.render import render

SMALL = TripletConfig(method="surface", gaussians=64, views=3, size=32, held_out=1)


def test_views_show_the_object_and_fill_the_picture(boxes):
    triplet = make_triplet(boxes[0], TripletConfig(method="surface", gaussians=64, views=4, size=64))
    assert triplet.views.shape == (4, 64, 64, 4)
    seen = triplet.views[..., 3] == 255
    assert 0.2 < seen.mean() < 0.8
    rgb = triplet.views[seen].astype(int)
    assert (rgb[:, 0] > 1.5 * rgb[:, 1]).mean() > 0.95
    assert (triplet.views[:, 0, 0, 3] == 0).all()
    assert triplet.pictures()[0].getpixel((0, 0)) == (255, 255, 255)


def test_colors_at_edges_are_straight_not_darkened(boxes):
    views = make_triplet(boxes[0], replace(SMALL, size=64, shading=0)).views
    edge = (views[..., 3] > 0) & (views[..., 3] < 255)
    assert edge.any()
    assert np.abs(views[edge][:, :3].astype(int) - [230, 26, 26]).max() <= 2


def test_elevations_alternate_within_their_jitter_and_differ_between_objects():
    elevations = (0.0, 20.0, 40.0)
    cameras = view_cameras(36, 64, 1.0, elevations, jitter=10.0, seed=1)
    height = torch.rad2deg(torch.asin(cameras.centers[:, 1] / cameras.centers.norm(dim=1)))
    nominal = torch.tensor(elevations)[torch.arange(36) % 3]
    assert float((height - nominal).abs().max()) <= 10.001
    assert float((height - nominal).abs().max()) > 5
    azimuth = torch.rad2deg(torch.atan2(cameras.centers[:, 0], cameras.centers[:, 2]))
    steps = azimuth.diff() % 360
    assert torch.allclose(steps, torch.full((35,), 10.0), atol=1e-2)
    assert not torch.equal(cameras.centers, view_cameras(36, 64, 1.0, elevations, 10.0, seed=2).centers)
    assert torch.equal(cameras.centers, view_cameras(36, 64, 1.0, elevations, 10.0, seed=1).centers)
    distance = cameras.centers.norm(dim=1)
    assert torch.allclose(distance, torch.tensor(1.02 / math.sin(math.radians(15))), atol=1e-4)


def test_the_cameras_in_the_info_are_those_of_the_views(boxes):
    triplet = make_triplet(boxes[0], replace(SMALL, size=64, gaussians=4096))
    with torch.no_grad():
        seen = render(triplet.gaussians, triplet.cameras()).alpha > 0.5
    mask = torch.from_numpy(triplet.views[..., 3] > 127)
    assert float((seen & mask).sum() / (seen | mask).sum()) > 0.9


def test_info_says_where_an_object_comes_from(tmp_path, boxes):
    (tmp_path / "source").write_bytes(b"bytes of a mesh")
    item = replace(boxes[0], open_source=partial(open_to_read, tmp_path / "source"), captions=("a box of fire",))
    info = make_triplet(item, SMALL).info
    assert info["source_sha256"] == hashlib.sha256(b"bytes of a mesh").hexdigest()
    assert info["licence"] == "CC0-1.0"
    assert info["captions"][:2] == ["red cube", "a box of fire"]
    assert info["colors"] == ["red"]
    assert info["seed"] == object_seed("red_cube", 0) != object_seed("red_cube", 1)
    assert len(info["held_out"]) == 1
    assert 0 <= info["held_out"][0] < 3


def test_an_object_is_the_same_whoever_is_made_beside_it(boxes):
    alone = make_triplet(boxes[3], SMALL)
    together = make_triplets(boxes[:5], SMALL)[3]
    assert torch.equal(alone.gaussians.means, together.gaussians.means)
    assert np.array_equal(alone.views, together.views)
    assert alone.info == together.info


def test_errors_stay_with_their_object(boxes):
    def fail():
        raise DataError("no faces")

    made = make_triplets([boxes[0], CorpusObject("bad", "bad", fail), boxes[1]], SMALL)
    assert [type(one).__name__ for one in made] == ["Triplet", "DataError", "Triplet"]
    with pytest.raises(DataError, match="no faces"):
        make_triplet(CorpusObject("bad", "bad", fail), SMALL)


def test_large_meshes_and_files_are_refused(boxes, tmp_path):
    with pytest.raises(LimitError, match=r"red_cube: 12 faces, more than --max-faces 11"):
        make_triplet(boxes[0], replace(SMALL, max_faces=11))
    with (tmp_path / "large").open("wb") as sparse:
        sparse.truncate(2_000_001)
    item = replace(boxes[0], open_source=partial(open_to_read, tmp_path / "large"))
    with pytest.raises(LimitError, match="--max-megabytes 2"):
        make_triplet(item, replace(SMALL, max_megabytes=2))


def test_a_splat_is_normalised_drawn_and_not_fitted(boxes):
    splat = mesh_to_gaussians(boxes[0].load_mesh(), 2000).transform(scale=50.0, translation=torch.tensor([300.0, 0, 0]))
    item = CorpusObject("splat", "red thing", boxes[0].load_mesh, load_gaussians=lambda: splat)
    triplet = make_triplet(item, TripletConfig(method="fitted", gaussians=500, views=3, size=32))
    assert isinstance(triplet.gaussians, Gaussians)
    assert len(triplet.gaussians) == 500
    assert float(triplet.gaussians.means.abs().max()) == pytest.approx(1, abs=0.02)
    assert triplet.info["method"] == "splat"
    assert triplet.info["psnr"] is None
    center = triplet.views[0, 16, 16].astype(int)
    assert center[3] == 255
    assert center[0] > 4 * center[1]


def test_faint_gaussians_of_a_splat_are_left_out_as_the_model_leaves_them_out(boxes):
    solid = mesh_to_gaussians(boxes[0].load_mesh(), 500)
    haze = replace(solid.transform(scale=20.0), opacities=torch.full((500,), 0.01))
    fields = ("means", "quats", "scales", "opacities", "sh")
    both = Gaussians(**{name: torch.cat([getattr(solid, name), getattr(haze, name)]) for name in fields})
    items = [CorpusObject("splat", "red thing", boxes[0].load_mesh, load_gaussians=lambda splat=splat: splat)
             for splat in (solid, both, haze)]  # fmt: skip
    alone, hazy, faint = make_triplets(items, SMALL)
    assert torch.equal(alone.gaussians.means, hazy.gaussians.means)
    assert (alone.views == hazy.views).all()
    assert "splat: none of the 500 Gaussians has an opacity" in str(faint)


def test_a_mesh_without_colours_gets_no_colour_words(boxes):
    mesh = replace(boxes[0].load_mesh(), materials=(Material(GREY),))
    assert not has_colors(mesh)
    assert has_colors(boxes[0].load_mesh())
    info = make_triplet(CorpusObject("x", "thing", lambda: mesh), SMALL).info
    assert info["colors"] == []
    assert not any("grey" in caption for caption in info["captions"])


def test_the_radius_is_that_of_used_vertices(boxes):
    mesh = boxes[0].load_mesh()
    stray = replace(mesh, vertices=np.vstack([mesh.vertices, [[100, 0, 0]]]).astype(np.float32))
    assert mesh_radius(stray) == pytest.approx(math.sqrt(3) / 2)


@pytest.mark.parametrize(
    ("change", "flag"),
    [({"gaussians": 0}, "--gaussians"), ({"views": 0}, "--views"), ({"elevations": (85.0,)}, "--elevations"),
     ({"held_out": 36}, "--held-out"), ({"shading": 2.0}, "--shading"), ({"max_faces": 0}, "--max-faces")],
)  # fmt: skip
def test_settings_out_of_range_name_the_flag(change, flag):
    with pytest.raises(DataError, match=flag):
        TripletConfig(**change)


def test_a_fit_shows_views_it_did_not_see_better_than_the_surface(boxes):
    setup = TripletConfig(gaussians=200, steps=(45, 45), views=8, size=48)
    items = boxes[:2]
    fitted = make_triplets(items, setup)
    surface = make_triplets(items, replace(setup, method="surface"))
    for fit, start in zip(fitted, surface, strict=True):
        assert fit.info["method"] == "fitted"
        assert fit.info["psnr"] > start.info["psnr"] + 3
        assert fit.info["ssim"] > start.info["ssim"]
        assert fit.info["held_out"] == start.info["held_out"]
        assert len(fit.gaussians) <= 200
    alone = make_triplet(items[1], setup)
    assert fitted[1].info["psnr"] == pytest.approx(alone.info["psnr"], abs=0.3)


def test_an_object_that_cannot_be_fitted_does_not_stop_its_batch(boxes, monkeypatch):
    """An object drawn as nothing; the batch is fitted one by one to find it."""
    setup = TripletConfig(gaussians=50, steps=(3, 3), views=4, size=16, held_out=1)
    real = triplets_module.mesh_views

    def nothing_of_the_second(mesh, cameras, shading):
        views = real(mesh, cameras, shading)
        return views * 0 if mesh.materials[0].color[2] > 0.5 else views

    monkeypatch.setattr(triplets_module, "mesh_views", nothing_of_the_second)
    made = make_triplets(boxes[:3], setup)
    assert [type(one).__name__ for one in made] == ["Triplet", "DataError", "Triplet"]
