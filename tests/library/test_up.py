"""What users say about which axis points up is remembered with the assets, and everything follows it; on both stores."""

import json
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from library.color_model import ColorModel
from splatsense import asset_commands
from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import AXES, Up
from splatsense.io import save
from splatsense.library import Library, thumbnails
from splatsense.library.asset_files import seen_file
from splatsense.library.ingest import Embedded, Ingest
from splatsense.library.reading import Readers, read_here
from splatsense.library.records import Indexed
from splatsense.library.thumbnails import thumbnail_path
from splatsense.upright import stood_up, turn_to_y


class HeightModel(ColorModel):
    """Embeds how far a splat extends along each axis, so that it sees which way up it gets it."""

    def encode_gaussians(self, objects, batch_size: int = 16):
        self.encoded += len(objects)
        return normalize(torch.stack([item.bounds[1] - item.bounds[0] for item in objects]), dim=-1)


@pytest.fixture
def model() -> HeightModel:
    return HeightModel("heights")


@pytest.fixture
def tower(tmp_path):
    """A file with a tower along z, red at its foot and green at its top."""
    count = 200
    means = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 4.0])
    colors = torch.where(means[:, 2:] < 2, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4)
    gaussians = Gaussians.from_rgb(means, quats, torch.full((count, 3), 0.2), torch.ones(count), colors)
    path = tmp_path / "assets" / "tower.ply"
    path.parent.mkdir()
    save(gaussians, path)
    return path


def is_red_below_green(picture) -> bool:
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    red, green = (pixels[..., a] - pixels[..., b] > 60 for a, b in ((0, 1), (1, 0)))
    assert red.any()
    assert green.any()
    return np.nonzero(red)[0].mean() > np.nonzero(green)[0].mean() + 40


def along(library, axis: int) -> bool:
    """Whether the embedding of the only asset says that it is longest along an axis."""
    (asset,) = library.assets()
    return int(np.argmax(library.embed_asset(asset.id))) == axis


@pytest.mark.parametrize("up", AXES)
def test_what_points_up_is_brought_to_y(up):
    generator = torch.Generator().manual_seed(1)
    gaussians = Gaussians.from_rgb(
        torch.randn(9, 3, generator=generator),
        normalize(torch.randn(9, 4, generator=generator), dim=-1),
        torch.rand(9, 3, generator=generator),
        torch.ones(9),
        torch.rand(9, 3, generator=generator),
    )
    axis, sign = AXES[up]
    assert torch.allclose(stood_up(gaussians, up).means[:, 1], sign * gaussians.means[:, axis])
    assert torch.equal(stood_up(gaussians, None).means, gaussians.means)
    assert torch.linalg.det(turn_to_y(up)) == pytest.approx(1)


def test_it_is_remembered_and_embeddings_and_pictures_follow(library, open_library, tower, model):
    library.add(tower, progress=False)
    (before,) = library.assets()
    assert (before.up, along(library, 2)) == (None, True)
    assert not is_red_below_green(library.thumbnail(before))
    assert library.add(tower, progress=False, up="z", draw=True).indexed == 1
    (asset,) = library.assets()
    assert (asset.id, asset.up, asset.bounds) == (before.id, "z", before.bounds)
    assert along(library, 1)
    drawn = thumbnail_path(library.path, asset.sha256, "z")
    assert drawn.is_file()
    assert library.thumbnail(asset) == drawn
    assert is_red_below_green(drawn)
    encoded = model.encoded
    for up in (None, "z"):  # nothing new is said
        assert library.add(tower, progress=False, up=up).skipped == 1
    shutil.copy(tower, tower.with_name("copy.ply"))  # of the same content
    assert library.add(tower.parent, progress=False).skipped == 2
    assert model.encoded == encoded
    with open_library() as again:
        assert [asset.up for asset in again.assets()] == ["z"]
        assert again.verify(contents=True).problems == []
        assert again.rebuild() == 1  # the picture of before
        assert again.add(tower, progress=False, up="auto").indexed == 1
        assert again.assets()[0].up is None
        assert along(again, 2)


def test_upside_down_is_another_axis(library, tower):
    library.add(tower, progress=False, up="-z")
    assert along(library, 1)
    assert not is_red_below_green(library.thumbnail(1))
    library.add(tower, progress=False, up="z")
    assert is_red_below_green(library.thumbnail(1))
    library.remove(1)
    assert [path.suffixes for path in (library.path / thumbnails.FOLDER).iterdir()] == [[".-z", ".webp"]]


class Refusing(HeightModel):
    """As it, but takes nothing that is higher than wide while `refuses`."""

    refuses = True

    def encode_gaussians(self, objects, batch_size: int = 16):
        vectors = super().encode_gaussians(objects, batch_size)
        if self.refuses and bool((vectors.argmax(1) == 1).any()):
            raise DataError("too high")
        return vectors


@pytest.fixture
def refusing(open_library):
    with open_library(Refusing("refusing heights")) as opened:
        yield opened


def test_what_failed_with_one_axis_up_is_tried_with_another(refusing, tower):
    for up in ("z", "z", None):
        report = refusing.add(tower, progress=False, up=up)
        assert (report.indexed, report.skipped, report.failed) == (0, 0, [(tower, "too high")])
    copy = tower.with_name("copy.ply")
    shutil.copy(tower, copy)
    assert refusing.add(copy, progress=False).failed == [(copy, "too high")]
    assert refusing.model.encoded == 2, "each was tried once"
    assert [asset.up for asset in refusing.failures()] == ["z"]
    assert refusing.add(tower, progress=False, up="x").indexed == 1
    assert [asset.up for asset in refusing.assets()] == ["x"]


def test_what_failed_is_tried_again_with_the_axis_that_was_said(refusing, tower, tmp_path):
    refusing.add(tower, progress=False, up="z")
    refusing.export(tmp_path / "export")
    refusing.model.refuses = False
    assert refusing.add(tower, progress=False, retry=True).indexed == 1
    assert [asset.up for asset in refusing.assets()] == ["z"]
    assert along(refusing, 1)
    with Library(tmp_path / "imported", refusing.model, isolated=False) as imported:
        imported.import_from(tmp_path / "export")
        assert imported.add(tower, progress=False, retry=True).indexed == 1
        assert along(imported, 1)


def test_work_done_elsewhere_remembers_what_failed_too(refusing, tower):
    told = []

    def embed(files):
        told.extend(up for _, up in files)
        return [Embedded(seen_file(path), None, error="too high") for path, _ in files]

    for up in ("z", "z", None, "-z", "auto", None):
        report = Ingest(refusing._store, refusing.model, read_here, up=up).run_elsewhere([tower], embed, progress=False)
        assert report.failed == [(tower, "too high")]
    assert told == ["z", "-z", None]


def test_other_models_see_it_that_way_up_too(library, open_library, tower):
    other = HeightModel("other heights")
    with open_library(other) as by_other:
        by_other.add(tower, progress=False)
    library.add(tower, progress=False, up="z")  # what the other model said is of a tower that lies
    assert [(state.name, state.count) for state in library.models()] == [("heights", 1), ("other heights", 0)]
    with open_library(other) as by_other:
        assert by_other.add(tower, progress=False).indexed == 1
        assert along(by_other, 1)
        assert by_other.verify().problems == []
    assert [state.count for state in library.models()] == [1, 1]


def test_a_search_sees_what_another_process_turned(library, open_library, tower, write_blob):
    library.add([tower, write_blob(tower.with_name("blob.ply"))], progress=False)
    query = np.array([0.0, 1.0, 0.0], np.float32)
    before = {hit.name: hit.score for hit in library.search_vector(query)}
    with open_library() as other:
        other.add(tower, progress=False, up="z")
    after = {hit.name: hit.score for hit in library.search_vector(query)}
    assert after["tower"] > before["tower"] + 0.5
    assert after["blob"] == pytest.approx(before["blob"])


def test_exports_and_imports_keep_it(library, tower, tmp_path, model, write_blob):
    library.add(tower, progress=False, up="z", draw=True)
    library.add(write_blob(tower.with_name("blob.ply")), progress=False)
    library.export(tmp_path / "export")
    with Library(tmp_path / "imported", model, isolated=False) as imported:
        imported.import_from(tmp_path / "export")
        assert {asset.name: asset.up for asset in imported.assets()} == {"tower": "z", "blob": None}
        asset = next(asset for asset in imported.assets() if asset.up)
        assert thumbnail_path(imported.path, asset.sha256, "z").is_file()
        assert imported.add(tower, progress=False).skipped == 1
        assert imported.verify(contents=True).problems == []
    with Library(tmp_path / "own", model, isolated=False) as own:  # what was said here stays
        own.add(tower, progress=False, up="x")
        encoded = own.embed_asset(1)
        own.import_from(tmp_path / "export")
        assert own.asset(1).up == "x"
        assert np.array_equal(own.embed_asset(1), encoded)
    listing = tmp_path / "export" / "assets.json"
    entries = json.loads(listing.read_text())
    for entry in entries["assets"]:
        del entry["up"]
    listing.write_text(json.dumps(entries))  # as the version before wrote it
    with Library(tmp_path / "old", model, isolated=False) as old:
        old.import_from(tmp_path / "export")
        assert {asset.up for asset in old.assets()} == {None}
    entries["assets"][0]["up"] = "sideways"
    listing.write_text(json.dumps(entries))
    with Library(tmp_path / "bad", model, isolated=False) as bad, pytest.raises(FormatError, match="'up' is no axis"):
        bad.import_from(tmp_path / "export")


def test_work_done_elsewhere_knows_it_too(library, tower, model):
    """As through Ray: whoever embeds is told what points up, but cannot know that a new file is a copy."""
    library.add(tower, progress=False, up="z")
    copy = tower.with_name("copy.ply")
    shutil.copy(tower, copy)
    told = []
    other = HeightModel("other")

    def embed(files):
        for path, up in files:
            told.append((path.name, up))
            gaussians = read_here(path, False).result().gaussians
            vector = other.encode_gaussians([stood_up(gaussians, up)])[0].numpy()
            file = seen_file(path)
            yield Embedded(file, Indexed(file, vector, len(gaussians), gaussians.bounds.numpy(), up))

    report = Ingest(library._store, other, read_here).run_elsewhere([copy, tower], embed, progress=False)
    assert told == [("copy.ply", None), ("tower.ply", "z")]
    assert (report.indexed, report.skipped, report.failed) == (1, 1, [])
    vector = library._store.embedding(1, other.hash)
    assert int(np.argmax(vector)) == 1
    assert library.asset(1).up == "z"


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_readers_in_processes_of_their_own_draw_it_upright(store, tower, tmp_path):
    readers = Readers(1)
    try:
        for up, upright in (("z", True), ("-z", False)):
            (tmp_path / f"{up}.webp").write_bytes(readers.read(tower, True, up).result().thumbnail)
            assert is_red_below_green(tmp_path / f"{up}.webp") == upright
    finally:
        readers.close()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_the_command_takes_what_other_commands_take(store, tower, tmp_path, capsys):
    assert get_args(asset_commands.Up) == get_args(Up) == ("auto", *AXES)
    for argument, expected in (
        (["--up", "z"], "z"),
        (["--up=-y"], "-y"),
        (["--up", "-z"], "-z"),
        ([], "-z"),
        (["--up", "auto"], None),
    ):
        assert main(["add", str(tmp_path / "library"), str(tower), *argument, "--no-thumbnails"]) == 0
        with Library(tmp_path / "library", create=False) as library:
            assert library.asset(1).up == expected
