from pathlib import Path

import pytest

from splatsense.cli import main
from splatsense.formats import ASSET_SUFFIXES, READABLE, WRITABLE, without_suffix, writable_suffix
from splatsense.io import WRITERS


def test_what_is_said_to_be_written_is():
    assert list(WRITERS) == list(WRITABLE)
    assert {Path(suffix).suffix or suffix for suffix in WRITABLE} <= set(READABLE)
    assert set(READABLE) > ASSET_SUFFIXES


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("a.ply", ".ply", "a"),
        ("a.b.PLY", ".ply", "a.b"),
        ("a.compressed.ply", ".compressed.ply", "a"),
        ("A.Compressed.Ply", ".compressed.ply", "A"),
        ("a.compressed.sog", ".sog", "a"),
        ("a.obj", None, "a"),
        ("ply", None, "ply"),
    ],
)
def test_extensions_of_two_parts(name, suffix, stem):
    assert writable_suffix(Path("folder") / name) == suffix
    assert without_suffix(Path("folder") / name) == Path("folder") / stem


def test_the_command_line_lists_them(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Reads {' '.join(READABLE)}" in shown
    assert f"Writes {' '.join(WRITABLE)}" in shown
