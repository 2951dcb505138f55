"""Blocks of a page that a study writes into."""

import pytest

from splatsense.errors import DataError
from splatsense.studies.page import check_page, markdown, points, spread, write_into


def test_blocks_are_replaced_and_all_else_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("top\n<!-- study:a -->\nold\n<!-- /study:a -->\nmiddle\n<!-- study:b --><!-- /study:b -->\nend\n")
    write_into(page, {"a": "new\nlines", "b": "more"})
    expected = "top\n<!-- study:a -->\nnew\nlines\n<!-- /study:a -->\nmiddle\n<!-- study:b -->\nmore\n<!-- /study:b -->\nend\n"
    assert page.read_text() == expected


def test_pages_that_cannot_be_written_into(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(DataError, match="there is no such page"):
        check_page(page, ["a"])
    page.write_text("<!-- study:a -->\n")
    with pytest.raises(DataError, match="lacks <!-- study:a --> and <!-- /study:a -->"):
        check_page(page, ["a"])
    page.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"page\.md: is no text in UTF-8"):
        check_page(page, ["a"])


def test_cells():
    assert markdown([["a|b", "c"], ["1", "2"]]) == "| a/b | c |\n|---|---|\n| 1 | 2 |"
    assert spread({0: 0.1, 1: 0.3}) == "20.0 ± 14.1"
    assert spread({0: 0.1}) == "10.0"
    assert spread({}) == "–"
    assert [points(value) for value in (0.051, -0.051, -0.0001)] == ["+5.1", "−5.1", "0.0"]
