import logging

import numpy as np
import pytest

from splatsense.corpora import CorpusObject
from splatsense.corpora.rooms import procedural
from splatsense.corpora.rooms.kitchen import parts
from splatsense.corpora.rooms.pieces import Piece, Pieces, height_map, standing_places
from splatsense.errors import FormatError
from splatsense.mesh import Material, Mesh

# A wedge in catalogue axes: y up, its front, at +z, is low.
WEDGE = Mesh(
    np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 3], [2, 0, 3]], np.float32),
    np.array([[0, 1, 2], [0, 2, 3], [3, 2, 5], [3, 5, 4], [0, 1, 5], [0, 5, 4]], np.int32),
    np.zeros(6, np.int32), np.zeros(6, np.int32), (Material(np.array([0.8, 0.9, 0.9, 0.3], np.float32)),),
)  # fmt: skip


def pieces_of(**properties: str) -> Pieces:
    item = CorpusObject("Scopia_desk_lamp1", "Wedge", lambda: WEDGE, split="train", size_cm=(80, 40, 60), properties=properties)
    return Pieces([item], "train")


def test_pieces_have_the_catalogues_size_and_their_front_at_minus_y() -> None:
    pieces = pieces_of()
    vertices = pieces.mesh(pieces.by_role["desk_lamp"][0]).vertices
    np.testing.assert_allclose(vertices.min(0), [-0.4, -0.2, 0], atol=1e-6)
    np.testing.assert_allclose(vertices.max(0), [0.4, 0.2, 0.6], atol=1e-6)
    assert vertices[vertices[:, 1] < -0.19, 2].max() == 0, "the low edge is the front"


def test_a_missing_texture_is_told_once_however_often_a_piece_is_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Mesh:
        logging.getLogger("splatsense").warning("textures not found")
        return WEDGE

    monkeypatch.setattr("splatsense.corpora.rooms.pieces.CACHED_MESHES", 1)
    keys = ("Scopia_desk_lamp1", "Scopia_desk_lamp2")
    items = [CorpusObject(key, "Wedge", load, split="train", size_cm=(80, 40, 60)) for key in keys]
    pieces = Pieces(items, "train")
    for _ in range(3):
        for piece in pieces.by_role["desk_lamp"]:
            assert len(pieces.mesh(piece).faces) == 6
    assert len(caplog.records) == len(pieces.by_role["desk_lamp"]) == 2


def test_model_rotation_turns_a_model_before_it_is_stretched() -> None:
    pieces = pieces_of(modelRotation="0 0 1 0 1 0 -1 0 0")  # x becomes -z: what was the front is now to the right
    vertices = pieces.mesh(pieces.by_role["desk_lamp"][0]).vertices
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [0.8, 0.4, 0.6], atol=1e-6)
    assert vertices[vertices[:, 0] > 0.39, 2].max() == 0


def test_glass_is_solid() -> None:
    pieces = pieces_of()
    assert pieces.mesh(pieces.by_role["desk_lamp"][0]).materials[0].color[3] == 1


def test_height_maps_see_the_surface_from_the_front_left() -> None:
    pieces = pieces_of()
    top = pieces.top(pieces.by_role["desk_lamp"][0])
    assert top.shape == (20, 40)
    np.testing.assert_allclose(top[:, 20], 0.6 * (np.arange(20) + 0.5) / 20, atol=2e-3)


def test_things_stand_where_it_is_flat_and_wide_enough() -> None:
    top = np.full((30, 30), 0.7)
    top[:, :12] = 0.9
    top[:3, :3] = np.nan
    places = standing_places(top, 0.2, 0.1)
    rows, columns = np.nonzero(~np.isnan(places))
    assert set(np.unique(places[rows, columns]).round(3)) == {0.7, 0.9}
    assert set(columns) == {5, 6, *range(17, 25)}, "not across the step"
    assert rows.min() >= 2
    assert rows.max() <= 27
    assert np.isnan(standing_places(top, 5.0, 0.1)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_procedural_pieces_fill_the_size_they_claim(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [
        procedural.picture(rng, 0.8, 0.5), procedural.mirror(rng, 0.5, 0.7), procedural.rug(rng, 1.5, 1.0),
        procedural.bath_mat(rng), procedural.curtain(rng, 0.4, 2.0, np.full(3, 0.5)), procedural.counter_top(rng, 1.2, 0.6),
        procedural.bathtub(rng),
        procedural.trash_bin(rng),
    ]  # fmt: skip
    assert len({piece.key for piece in made}) == len(made)
    for piece in made:
        vertices = piece.load().vertices
        np.testing.assert_allclose(vertices.min(0), [-piece.size[0] / 2, -piece.size[1] / 2, 0], atol=0.003, err_msg=piece.key)
        np.testing.assert_allclose(vertices.max(0), [piece.size[0] / 2, piece.size[1] / 2, piece.size[2]], atol=0.003)
    hollow = height_map(made[-2].load(), made[-2].size)
    assert hollow[len(hollow) // 2, hollow.shape[1] // 2] < made[-2].size[2] - 0.3


def test_sink_cabinets_are_cabinet_counter_and_sink() -> None:
    piece = Piece("BlendSwap-CC-0_sinkCabinet", "Sink", "sink_cabinet", (1.0, 0.6, 1.2), lambda: WEDGE, surface=0.88)
    centroids = np.array([[0, -0.29, 0.4], [0.48, 0.0, 0.87], [0, 0, 0.75], [0, 0.1, 1.1]])
    assert parts(piece, centroids).tolist() == ["sink_cabinet", "counter", "sink", "sink"]


def test_a_corpus_without_usable_pieces_is_an_error() -> None:
    with pytest.raises(FormatError, match="no test piece"):
        Pieces([], "test")
