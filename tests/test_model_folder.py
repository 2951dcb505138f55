import torch

from splatsense.model_folder import halved, read_card, read_weights, save_model_folder


def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path):
    """A running variance of 1e6 would come back as infinity, and its channel as zero."""
    weights = {"weight": torch.tensor([0.1, -65504.0]), "variance": torch.tensor([1e6, 0.1]), "steps": torch.tensor(70_000)}
    save_model_folder(tmp_path, weights, {})
    found = read_weights(tmp_path, read_card(tmp_path))
    assert {name: value.dtype for name, value in found.items()} == {
        "weight": torch.float16, "variance": torch.float32, "steps": torch.int64,
    }  # fmt: skip
    assert torch.equal(found["variance"], weights["variance"])
    assert torch.equal(found["weight"].float(), weights["weight"].half().float())
    assert all(torch.equal(found[name], value) for name, value in halved(weights).items())
