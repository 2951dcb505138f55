"""Embeddings as values: search by one, among some assets, and where an asset's file is."""

import numpy as np
import pytest

from splatsense.errors import LibraryError
from splatsense.library.index import VectorIndex, top_k
from splatsense.library.records import Revision


@pytest.fixture
def filled(library, folder):
    library.add(folder, progress=False)
    return library


def test_searching_by_an_embedding_is_searching_by_what_it_was_made_from(filled):
    assert filled.search_vector(filled.embed_text("red"), 9) == filled.search_text("red", 9)
    picture = np.zeros((8, 8, 3), np.uint8) + np.array([0, 0, 255], np.uint8)
    assert filled.search_vector(filled.embed_image(picture), 9) == filled.search_image(picture, 9)
    asset = filled.assets()[4]
    assert filled.search_vector(filled.embed_asset(asset), 9) == filled.search_asset(asset, 9)


def test_a_search_among_some_assets_is_that_of_all_without_the_others(filled):
    every = filled.search_text("red", 9)
    ids = np.array([hit.id for hit in every[::2]] + [999])
    assert filled.search_vector(filled.embed_text("red"), 3, ids) == every[::2][:3]
    assert filled.search_vector(filled.embed_text("red"), 3, np.zeros(0, np.int64)) == []


def test_the_best_among_some_rows_are_those_that_sorting_gives():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 6)).astype(np.float32)
    index = VectorIndex(np.arange(0, 400, 2), vectors, Revision(b"", 0))
    among = random.choice(index.ids, 50, replace=False)
    ids, scores = index.top_k(vectors[3], 7, among)
    rows = np.flatnonzero(np.isin(index.ids, among))
    expected = rows[top_k(vectors[rows] @ vectors[3], 7)]
    assert ids.tolist() == index.ids[expected].tolist()
    assert np.allclose(scores, vectors[expected] @ vectors[3])


def test_embeddings_are_those_of_all_assets_in_the_order_of_their_ids(filled):
    index = filled.embeddings()
    assert index.ids.tolist() == [asset.id for asset in filled.assets()]
    assert np.array_equal(index.vectors[2], filled.embed_asset(int(index.ids[2])))


def test_a_file_that_moved_with_its_library_is_found_and_one_that_is_gone_is_an_error(filled):
    asset = filled.assets()[0]
    assert filled.file(asset) == filled.file(asset.id) == asset.path
    asset.path.unlink()
    with pytest.raises(LibraryError, match="the file is gone"):
        filled.file(asset)
