import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from splatsense.errors import CheckpointError
from splatsense.training.checkpoint import CURRENT, DAMAGED, PREVIOUS, load_checkpoint, save_checkpoint


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


def test_a_checkpoint_of_another_version_is_named(tmp_path):
    module, optimizer = run_of()
    save_checkpoint(tmp_path, {"net": module}, optimizer, {})
    for version, metadata in (("1", {"state": "{}"}), ("7", {"state": "{}", "version": "7"})):
        save_file(load_file(tmp_path / CURRENT), tmp_path / CURRENT, metadata)
        with pytest.raises(CheckpointError, match=f"has version {version}, this splatsense reads 2"):
            load_checkpoint(tmp_path, {"net": module}, optimizer)


def test_nothing_is_restored_from_a_checkpoint_that_does_not_fit(tmp_path):
    module, optimizer = run_of()
    train(module, optimizer, 1)
    save_checkpoint(tmp_path, {"net": module}, optimizer, {})
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"net/2.weight is None there and \(2, 4\) here"):
        load_checkpoint(tmp_path, {"net": other}, torch.optim.AdamW(other.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_the_state_of_the_optimiser_goes_by_names(tmp_path):
    module, optimizer = run_of()
    train(module, optimizer, 2)
    save_checkpoint(tmp_path, {"net": module}, optimizer, {})
    other, _ = run_of()
    reversed_optimizer = torch.optim.AdamW(reversed(list(other.parameters())), lr=0.1)
    load_checkpoint(tmp_path, {"net": other}, reversed_optimizer)
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[ours]["exp_avg"], reversed_optimizer.state[theirs]["exp_avg"])
    train(module, optimizer, 1)
    train(other, reversed_optimizer, 1)
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
