"""Records of runs: other settings and damaged files are refused, and every version of the code is kept."""

import json

import pytest

from splatsense.errors import CheckpointError, FormatError
from splatsense.studies import records


def test_a_record_keeps_settings_and_every_code_that_worked_on_the_run(tmp_path, monkeypatch):
    path = tmp_path / "run" / "run.json"
    records.keep_record(path, {"steps": 3, "grid": (2, 2)})
    records.keep_record(path, {"steps": 3, "grid": (2, 2)})
    monkeypatch.setattr(records, "code_version", lambda: "another")
    records.keep_record(path, {"steps": 3, "grid": (2, 2)})
    first, second = records.check_record(path, {"steps": 3, "grid": (2, 2)})
    assert first.startswith("splatsense ")
    assert second == "another"
    with pytest.raises(CheckpointError, match="steps was 3 and is 4"):
        records.keep_record(path, {"steps": 4, "grid": (2, 2)})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"settings code"', '{"settings": {}}'])
def test_damaged_records_are_named(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"run\.json: cannot be read .*; remove it"):
        records.check_record(path, {})
    path.write_text(json.dumps({"settings": {}, "code": ["one"]}))
    assert records.check_record(path, {}) == ["one"]
