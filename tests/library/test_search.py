import inspect
import os

import numpy as np
import pytest
from PIL import Image

from library.color_model import COLORS, ColorModel, blob
from splatsense.cli import main
from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.library import Hit, Library
from splatsense.library.store import Store
from splatsense.library.tags import tag


@pytest.fixture
def filled(library, folder):
    library.add(folder, progress=False)
    return library


def names(hits: list[Hit]) -> list[str]:
    return [hit.path.name for hit in hits]


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_words_pictures_and_assets_find_their_color(filled, tmp_path, color):
    picture = tmp_path / f"{color}.png"
    Image.new("RGB", (8, 8), color).save(picture)
    pixels = np.zeros((4, 4, 3), np.uint8) + (np.array(COLORS[color]) * 255).astype(np.uint8)
    queries = [f"a {color} thing", picture, str(picture), Image.open(picture), pixels, blob(COLORS[color], seed=77)]
    for query in queries:
        hits = filled.search(query, k=3)
        assert all(color in name.lower() for name in names(hits)), query
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_hits_are_what_brute_force_finds(filled, model):
    query = model.encode_text(["a red thing"]).numpy()[0]
    expected = []
    for asset in filled.assets():
        from splatsense.io import load

        expected.append((-float(model.encode_gaussians([load(asset.path)]).numpy()[0] @ query), asset.id))
    expected.sort()
    hits = filled.search("a red thing", k=9)
    assert [hit.id for hit in hits] == [asset_id for _, asset_id in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [-score for score, _ in expected], atol=1e-6)


def test_an_asset_finds_itself_first(filled):
    asset = filled.assets()[4]
    for query in (asset, asset.id, asset.path, str(asset.path)):
        hits = filled.search(query, k=2)
        assert hits[0].id == asset.id
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_file_of_the_library_is_not_encoded_again(filled, model):
    model.encoded = 0
    filled.search(filled.assets()[0].path)
    assert model.encoded == 0


def test_equal_scores_come_in_the_order_of_ids(tmp_path, open_library):
    class OneVector(ColorModel):
        def encode_gaussians(self, objects, batch_size=16):
            return super().encode_text(["red"] * len(objects))

    from splatsense.io import save

    (tmp_path / "in").mkdir()
    for seed in range(20):
        save(blob(COLORS["red"], seed), tmp_path / "in" / f"{seed}.splat")
    with open_library(OneVector()) as library:
        library.add(tmp_path / "in", progress=False)
        ids = [asset.id for asset in library.assets()]
        assert [hit.id for hit in library.search("red", k=7)] == ids[:7]


def test_a_search_may_look_at_some_assets_only(filled):
    ids = np.array([asset.id for asset in filled.assets()])
    vector = filled.embed_text("red")
    everything = [hit.id for hit in filled.search_vector(vector, k=9)]
    assert [hit.id for hit in filled.search_vector(vector, 9, ids[::2])] == [
        i for i in everything if i in set(ids[::2].tolist())
    ]
    assert filled.search_vector(vector, 9, ids[:0]) == []


def test_more_results_than_assets(filled):
    assert len(filled.search("red", k=1000)) == 9


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_query_is_an_error(filled, query):
    with pytest.raises(DataError, match="empty"):
        filled.search(query)


@pytest.mark.parametrize("query", [3.5, None, [1], b"red"])
def test_a_query_of_no_known_kind_is_an_error(filled, query):
    with pytest.raises(DataError, match=f"a {type(query).__name__} cannot be searched for; give words"):
        inspect.unwrap(Library.search)(filled, query)  # without the check of types that tests have


@pytest.mark.parametrize("unknown", [0, -1, 2**63, -(2**70)])
def test_an_id_that_is_none_is_an_error_whatever_its_size(filled, unknown):
    with pytest.raises(LibraryError, match=f"no asset has the id {unknown}"):
        filled.asset(unknown)


def test_k_below_one_is_an_error_before_anything_is_embedded(filled, folder, monkeypatch):
    for tower in ("encode_text", "encode_gaussians"):
        monkeypatch.setattr(ColorModel, tower, lambda *_: pytest.fail("embedded"))
    for ask in (lambda: filled.search("red", k=0), lambda: filled.tags(filled.assets()[0], k=0),
                lambda: tag(folder / "red_0.splat", k=0, model=ColorModel())):  # fmt: skip
        with pytest.raises(DataError, match="k must be at least 1"):
            ask()


def test_a_sheet_that_cannot_be_written_is_an_error_before_the_library_is_opened(tmp_path, capsys):
    for place, message in (("none/sheet.png", "its folder exists"), ("sheet.doc", "cannot draw into .doc")):
        assert main(["search", str(tmp_path / "no library"), "red", "--sheet", str(tmp_path / place)]) == 2
        assert message in capsys.readouterr().err


def test_files_of_other_kinds_and_folders_are_not_taken_for_words(filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.heic", "PNG")
    with pytest.raises(FormatError, match=r"photo\.heic: is not a 3D file: its first bytes are those of a PNG image"):
        filled.search("photo.heic")
    with pytest.raises(FormatError, match="red: is a folder; name a file in it"):
        filled.search("./red")
    assert filled.search("red") == filled.search_text("red"), "a word is a word, whatever lies in the current folder"


def test_a_file_that_does_not_exist_is_not_taken_for_words(filled):
    with pytest.raises(FormatError, match=r"chair\.png: no such file"):
        filled.search("chair.png")


def test_a_text_that_is_there_is_a_point_cloud(filled, tmp_path):
    cloud = tmp_path / "green.txt"
    assert filled.search(str(cloud), k=1)[0].name.startswith("green")  # as words
    cloud.write_text("x y z red green blue\n" + "".join(f"{i} {i % 3} {i % 5} 0 0 255\n" for i in range(20)))
    assert filled.search(str(cloud), k=1)[0].name.startswith("blue")


def test_an_empty_library_says_how_to_fill_it(library):
    assert len(library) == 0
    assert library.assets() == []
    with pytest.raises(LibraryError, match="is empty; index some with `splatsense add"):
        library.search("red")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # the other has no such file
@pytest.mark.parametrize("damage", ["delete", "truncate", "other", "empty"])
def test_the_vectors_file_is_made_again_when_missing_or_damaged(filled, folder, damage):
    before = filled.search("red", k=9)
    path = next(filled.path.glob("vectors-*.f32"))
    content = path.read_bytes()
    filled.close()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes({"truncate": content[:-5], "other": b"\1" * len(content), "empty": b""}[damage])
    with Library(filled.path, filled.model) as library:
        assert library.search("red", k=9) == before
    assert path.read_bytes() == content


def test_changes_of_another_process_are_seen(filled, open_library, tmp_path, write_blob):
    assert len(filled.search("red", k=99)) == 9
    ids = {asset.id for asset in filled.assets()}
    with open_library() as other:
        other.add(write_blob(tmp_path / "new.splat", "red", seed=500), progress=False)
        new = ({asset.id for asset in other.assets()} - ids).pop()
        assert {hit.id for hit in filled.search("red", k=99)} == ids | {new}
        other.remove(min(ids))
    assert {hit.id for hit in filled.search("red", k=99)} == ids - {min(ids)} | {new}


def test_vectors_of_another_length_are_refused(filled, open_library):
    class Wide(ColorModel):
        def encode_text(self, texts):
            import torch

            return torch.nn.functional.normalize(torch.ones(len(texts), 5), dim=-1)

    with open_library(Wide()) as library, pytest.raises(DataError, match="5 dimensions, the library 3"):
        library.search("red")


def test_assets_know_what_they_are(filled, folder):
    asset = next(asset for asset in filled.assets() if asset.path.name == "GreenThing1.ply")
    assert (asset.name, asset.gaussians) == ("green thing", 24)
    assert asset.path == folder / "more" / "GreenThing1.ply"
    assert asset.size == asset.path.stat().st_size
    assert asset.bounds is not None
    assert all(low < high for low, high in zip(*asset.bounds, strict=True))
    assert filled.asset(asset.id) == asset
    with pytest.raises(LibraryError, match="no asset has the id 4711"):
        filled.asset(4711)


def test_tags_rank_the_labels(filled):
    red = filled.search("red", k=1)[0].asset
    for asset in (red, red.id, red.path, blob(COLORS["red"])):
        tags = filled.tags(asset, ["a blue thing", "a red thing", "a green thing"], k=2)
        assert tags[0][0] == "a red thing"
        assert len(tags) == 2
    everything = filled.tags(red, ["red", "green", "blue"], k=9)
    assert sum(probability for _, probability in everything) == pytest.approx(1.0)
    assert filled.tags(red, ["red", "green", "red", "blue", "blue"], k=9) == everything  # each label once
    with pytest.raises(DataError, match="no labels"):
        filled.tags(red, [])


def test_an_asset_whose_file_was_overwritten_is_not_found_while_the_run_goes_on(filled, write_blob, monkeypatch):
    """Or for ever, when the run was interrupted: until its end nobody knows whether the old content turns up elsewhere."""
    asset = filled.search("red", k=1)[0].asset
    write_blob(asset.path, "blue", seed=500)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "drop_unseen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        filled.add(asset.path, progress=False)
    hits = filled.search("red", k=99)
    assert len(hits) == 9
    assert asset.id not in [hit.id for hit in hits]
    assert filled.search("red", k=9) == hits
    assert filled.search("red", k=2) == hits[:2]
    assert all(asset.id not in [found.id for found, _ in group] for group in filled.duplicates(0.5).near)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_pipe_is_no_query(filled, tmp_path):
    os.mkfifo(tmp_path / "pipe.ply")
    with pytest.raises(FormatError, match="is not a regular file"):
        filled.search_asset(tmp_path / "pipe.ply")
