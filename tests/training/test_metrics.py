import json
import sys

import pytest

from splatsense.errors import DataError
from splatsense.training.metrics import METRICS, MetricsLog, open_tensorboard, read_metrics
from splatsense.training.progress import Progress
from training.test_loop import run_to_end
from training.tiny_run import TinyRun
from training_runs import interrupted_before


def test_metrics_after_the_checkpoint_and_half_written_lines_are_dropped(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.write(step, loss=1 / step)
    with log.path.open("a") as opened:
        opened.write('{"step": 40, "lo')
    MetricsLog(tmp_path, step=20).write(30, loss=0.5, rate=1.23456789e-7)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}, {"step": 30, "loss": 0.5, "rate": 1.23457e-7}]


def test_progress_says_count_rate_and_time_left(monkeypatch, capsys):
    clock = iter([100.0, 110.0, 110.0, 120.0, 200.0, 250.0, 250.0])
    monkeypatch.setattr("splatsense.training.progress.time.monotonic", lambda: next(clock))
    progress = Progress("objects", 100, done=20)
    progress.advance(10, "loss 0.5")
    progress.advance(30)
    assert capsys.readouterr().err == "objects: 30/100, 1.0/s, 70 s left; loss 0.5\n"
    Progress("shards", 3).advance()
    assert capsys.readouterr().err == "shards: 1/3, 0.02/s, 100 s left\n"


def test_the_last_line_is_not_said_twice(capsys):
    progress = Progress("objects", 2)
    progress.advance(note="chair")
    progress.close()
    assert len(capsys.readouterr().err.splitlines()) == 1
    progress = Progress("objects", 2)
    progress.advance()
    progress.advance()
    progress.close()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["objects: 1/2", "objects: 2/2"]


def test_only_the_first_process_tells_of_progress(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    Progress("objects", 100).advance()
    assert capsys.readouterr().err == ""


def test_tensorboard_reads_what_the_log_holds_also_after_a_resume(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with interrupted_before(10, TinyRun):
        run_to_end(tmp_path, 20, tensorboard=True, checkpoint_every=6)
    run_to_end(tmp_path, 20, tensorboard=True, checkpoint_every=6)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= {
        "metrics/loss",
        "metrics/learning_rate",
        "metrics/gradient_norm",
        "speed/data_share",
    }
    lines = read_metrics(tmp_path / METRICS)
    assert [(event.step, event.value) for event in events.Scalars("metrics/loss")] == [
        (line["step"], pytest.approx(line["loss"], rel=1e-4)) for line in lines
    ]
    assert len(lines) == 20


def test_a_missing_tensorboard_is_named_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match=r"--tensorboard: .*pip install 'splatsense\[train\]'"):
        open_tensorboard(tmp_path, 0)
