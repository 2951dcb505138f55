import json

import pytest
import torch
from torch import nn

from splatsense.errors import CheckpointError
from splatsense.training.checkpoint import CURRENT, DAMAGED, PREVIOUS, load_checkpoint, save_checkpoint
from splatsense.training.metrics import MetricsLog
from splatsense.training.progress import Progress


def run_of(width: int = 4):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def train(module, optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()


def test_a_restored_run_goes_on_bit_for_bit(tmp_path):
    module, optimizer = run_of()
    train(module, optimizer, 3)
    save_checkpoint(tmp_path, {"net": module}, optimizer, {"step": 3})
    train(module, optimizer, 2)
    other, other_optimizer = run_of()
    assert load_checkpoint(tmp_path, {"net": other}, other_optimizer) == {"step": 3}
    train(other, other_optimizer, 2)
    for ours, theirs in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_one_before_is_kept_and_serves_when_the_last_is_damaged(tmp_path, caplog):
    module, optimizer = run_of()
    assert load_checkpoint(tmp_path, {"net": module}, optimizer) is None
    for step in (1, 2):
        train(module, optimizer, 1)
        save_checkpoint(tmp_path, {"net": module}, optimizer, {"step": step})
    assert {path.name for path in tmp_path.iterdir()} == {CURRENT, PREVIOUS}
    (tmp_path / CURRENT).write_bytes((tmp_path / CURRENT).read_bytes()[:-10])
    assert load_checkpoint(tmp_path, {"net": module}, optimizer) == {"step": 1}
    assert {path.name for path in tmp_path.iterdir()} == {DAMAGED, PREVIOUS}
    assert f"{CURRENT}: " in caplog.text
    assert f"going on from {tmp_path / PREVIOUS}" in caplog.text
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(CheckpointError, match=PREVIOUS):
        load_checkpoint(tmp_path, {"net": module}, optimizer)


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    module, optimizer = run_of()
    save_checkpoint(tmp_path, {"net": module}, optimizer, {})
    other, other_optimizer = run_of(width=5)
    with pytest.raises(CheckpointError, match=r"made by another network: net/0.weight is \(4, 3\) there and \(5, 3\) here"):
        load_checkpoint(tmp_path, {"net": other}, other_optimizer)


def test_metrics_after_the_checkpoint_and_half_written_lines_are_dropped(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.write(step, loss=1 / step)
    with log.path.open("a") as opened:
        opened.write('{"step": 40, "lo')
    MetricsLog(tmp_path, step=20).write(30, loss=0.5)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}, {"step": 30, "loss": 0.5}]


def test_progress_says_count_rate_and_time_left(monkeypatch, capsys):
    clock = iter([100.0, 110.0, 110.0, 120.0])
    monkeypatch.setattr("splatsense.training.progress.time.monotonic", lambda: next(clock))
    progress = Progress("objects", 100, done=20)
    progress.advance(10, "loss 0.5")
    progress.advance(30)
    assert capsys.readouterr().err == "objects: 30/100, 1.0/s, 70 s left; loss 0.5\n"
