import io
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from splatsense.errors import DataError
from splatsense.library import Library
from splatsense.web.searching import Searching, mixture
from web.conftest import CHOSEN, OBJECTS, SECONDS, wait_until

PICTURE = OBJECTS.parent / "query.png"


def names(reply) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [hit["name"] for hit in reply.json()["results"]]


def search(client, *parts, **filters):
    return client.post("/api/search", json={"parts": list(parts), **filters})


def test_words_find_what_the_library_finds(shared_client, indexed):
    with Library(indexed) as library:
        expected = library.search_text("a wooden chair", 5)
    found = search(shared_client, {"text": "a  wooden chair "}, limit=5).json()["results"]
    assert [hit["id"] for hit in found] == [hit.id for hit in expected]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)
    assert found[0]["name"] == "oak chair"
    assert names(shared_client.get("/api/search", params={"q": "a wooden chair", "limit": 3})) == [h.name for h in expected[:3]]


def test_without_a_query_the_newest_come_first_and_pages_follow_each_other(shared_client):
    everything = names(search(shared_client))
    assert sorted(everything) == sorted(set(everything))
    assert len(everything) == len(CHOSEN)
    assert names(search(shared_client, limit=4)) + names(search(shared_client, offset=4, limit=20)) == everything
    chairs = names(search(shared_client, {"text": "chair"}))
    assert (
        names(search(shared_client, {"text": "chair"}, limit=4)) + names(search(shared_client, {"text": "chair"}, offset=4))
        == chairs
    )


def test_any_number_of_assets_can_be_listed(shared_client):
    """More are listed than searched for: the page asks for more until there are none."""
    assert names(search(shared_client, offset=1_020)) == []
    assert names(search(shared_client, {"text": "chair"}, offset=1_020)) == []


def test_a_photograph_is_shown_upright(shared_client):
    photograph, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held upright
    Image.new("RGB", (60, 30)).save(photograph, "JPEG", exif=exif)
    dropped = shared_client.post("/api/queries", params={"name": "a.jpg"}, content=photograph.getvalue()).json()
    with Image.open(io.BytesIO(shared_client.get(f"/api/queries/{dropped['id']}/thumbnail").content)) as image:
        assert image.size == (30, 60)


def test_a_dropped_picture_and_a_dropped_file_find_their_like(shared_client):
    picture = shared_client.post("/api/queries", params={"name": "my sofa.png"}, content=PICTURE.read_bytes())
    assert picture.status_code == 201
    assert picture.json()["kind"] == "picture"
    assert names(search(shared_client, {"query": picture.json()["id"]}))[0] == "sofa"
    file = shared_client.post(
        "/api/queries", params={"name": "Ball.SPLAT"}, content=(OBJECTS / "basketball.splat").read_bytes()
    )
    found = search(shared_client, {"query": file.json()["id"]}).json()["results"]
    assert (found[0]["name"], found[0]["score"]) == ("basketball", pytest.approx(1, abs=1e-3))
    thumbnail = shared_client.get(f"/api/queries/{file.json()['id']}/thumbnail")
    with Image.open(io.BytesIO(thumbnail.content)) as image:
        assert image.format == "WEBP"
        assert np.asarray(image.convert("L")).std() > 10


def test_an_asset_finds_itself_and_a_negative_weight_leads_away(shared_client):
    chair = names(search(shared_client, {"asset": 1}))[0]
    assert shared_client.get("/api/assets/1").json()["name"] == chair
    assert names(search(shared_client, {"asset": 1, "weight": -1}))[-1] == chair


def test_a_mixture_lies_between_its_parts(shared_client):
    by_name = {hit["name"]: hit["id"] for hit in search(shared_client).json()["results"]}
    sofa = by_name["sofa"]
    mixed = names(search(shared_client, {"asset": sofa}, {"text": "a wooden chair"}))
    assert set(mixed[:4]) >= {"sofa", "oak chair"}
    less_sofa = names(search(shared_client, {"asset": sofa, "weight": 0.1}, {"text": "a wooden chair"}))
    assert less_sofa[:2] == names(search(shared_client, {"text": "a wooden chair"}))[:2]


def test_a_mixture_orders_as_the_weighted_sum_of_standard_scores():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = [(vectors[0], 0.7), (vectors[1] * 0.5 + vectors[2] * 0.5, -0.3)]
    summed = sum(weight * (vectors @ vector - (vectors @ vector).mean()) / (vectors @ vector).std() for vector, weight in parts)
    mixed = mixture(parts, vectors)
    assert np.linalg.norm(mixed) == pytest.approx(1)
    assert np.argsort(-(vectors @ mixed)).tolist() == np.argsort(-summed).tolist()
    with pytest.raises(DataError, match="cancel out"):
        mixture([(vectors[0], 1.0), (vectors[0], -1.0)], vectors)


def test_filters_keep_what_they_say(shared_client, objects):
    library = shared_client.get("/api/library").json()
    assert library["assets"] == len(CHOSEN)
    for tag, number in library["tags"].items():
        assert len(names(search(shared_client, tags=[tag]))) == number
    folder = str(objects / "furniture")
    assert library["folders"] == {folder: 6, str(objects / "things"): 4}
    found = search(shared_client, {"text": "a basketball"}, folder=folder).json()
    assert found["matching"] == len(found["results"]) == 6
    assert "basketball" not in [hit["name"] for hit in found["results"]]
    assert names(search(shared_client, size="small")) == names(search(shared_client))
    assert names(search(shared_client, {"text": "x"}, size="huge")) == []
    assert names(search(shared_client, {"text": "x"}, tags=["no such tag"])) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "one of words"),
        ({"text": "a", "asset": 1}, "one of words"),
        ({"text": "   "}, "empty"),
        ({"query": "unknown"}, "drop it again"),
        ({"text": "a", "weight": 7}, "less than or equal to 1"),
        ({"text": "a" * 501}, "at most 500"),
    ],
)
def test_a_part_that_makes_no_sense_is_an_error_with_an_id(shared_client, part, message):
    reply = search(shared_client, part)
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert message in error["message"]
    assert len(error["id"]) == 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"not a picture", "no picture"),
        ("a.ply", b"ply\nformat nonsense", "a.ply"),
        ("a.exe", b"MZ", "neither a picture nor"),
        ("../../etc/passwd", b"", "neither a picture nor"),
    ],
)
def test_what_cannot_be_searched_by_is_an_error_that_names_the_file(shared_client, name, content, message):
    reply = shared_client.post("/api/queries", params={"name": name}, content=content)
    assert reply.status_code == 422
    assert message in reply.json()["error"]["message"]
    assert "/tmp" not in reply.json()["error"]["message"]


def test_a_picture_with_too_many_pixels_is_refused(shared_client):
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "PNG")
    reply = shared_client.post("/api/queries", params={"name": "bomb.png"}, content=buffer.getvalue())
    assert reply.status_code == 413
    assert "9000 x 9000" in reply.json()["error"]["message"]


def test_words_are_embedded_while_a_dropped_file_is_read(library_copy, tmp_path):
    """The file is read when its reader may go on."""
    shutil.copy(OBJECTS / "stool.splat", tmp_path)
    may_go = threading.Event()

    class SlowLibrary(Library):
        def load(self, path):
            may_go.wait(SECONDS)
            return super().load(path)

    with SlowLibrary(library_copy) as library:
        searching = Searching(library)
        dropping = threading.Thread(target=searching.drop, args=(tmp_path / "stool.splat", False))
        dropping.start()
        wait_until(searching._reading.locked)
        embedding = threading.Thread(target=searching.text, args=("a chair",))
        embedding.start()
        embedding.join(SECONDS / 2)
        was_embedded = not embedding.is_alive()
        may_go.set()
        dropping.join()
        embedding.join()
    assert was_embedded


def test_the_newest_are_listed_although_one_was_removed_just_now(client):
    before = names(client.post("/api/search", json={}))
    removed = client.post("/api/search", json={}).json()["results"][0]
    client.app.state.services.library.remove(removed["id"])
    assert names(client.post("/api/search", json={})) == before[1:]


def test_an_empty_library_has_no_results_and_no_errors(tmp_path):
    from web.conftest import app_client

    with Library(tmp_path / "empty") as library, app_client(library) as client:
        assert client.get("/api/library").json()["assets"] == 0
        for parts in ([], [{"text": "a chair"}]):
            reply = search(client, *parts)
            assert (reply.status_code, reply.json()["results"]) == (200, [])
        assert client.get("/api/map").json()["ids"] == []
