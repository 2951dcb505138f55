import pytest
import torch
from torch import nn

from splatsense.training.divergence import DivergedError
from splatsense.training.optimizer import layer_factor, parameter_groups, update
from splatsense.training.schedules import WarmupCosine


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.embed = nn.Linear(2, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 1)


def test_only_matrices_decay_and_every_parameter_is_in_one_group():
    net = Net()
    groups = parameter_groups(net.named_parameters(), lambda name: 1e-3 if name.startswith("head") else 1e-4, 0.1)
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        group = of[id(parameter)]
        is_matrix = name in ("embed.weight", "blocks.0.weight", "blocks.1.weight", "head.weight")
        assert group["weight_decay"] == (0.1 if is_matrix else 0.0), name
        assert group["lr"] == group["peak_lr"] == (1e-3 if name.startswith("head") else 1e-4)


def test_rates_decay_from_the_head_down():
    factors = {name: layer_factor(name, depth=2, decay=0.5) for name, _ in Net().named_parameters()}
    assert factors["head.weight"] == factors["norm.bias"] == 1.0
    assert factors["blocks.1.weight"] == 0.5
    assert factors["blocks.0.bias"] == 0.25
    assert factors["embed.weight"] == factors["token"] == 0.125


def test_an_update_clips_and_refuses_what_is_not_finite():
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "lr": 0.5, "peak_lr": 0.5}])
    schedule = WarmupCosine(10, 0.2)
    before = [p.detach().clone() for p in net.parameters()]
    net.weight.grad, net.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    found = update(optimizer, schedule, 0, net.parameters(), clip=1.0)
    assert found == {"learning_rate": 0.25, "gradient_norm": pytest.approx(5.0)}
    moved = [a.detach() - b for a, b in zip(net.parameters(), before, strict=True)]
    assert torch.allclose(torch.cat([m.flatten() for m in moved]), torch.tensor([-0.15, 0.0, -0.2]), atol=1e-6)
    before = [p.detach().clone() for p in net.parameters()]
    net.bias.grad = torch.tensor([torch.nan])
    with pytest.raises(DivergedError, match="not finite"):
        update(optimizer, schedule, 1, net.parameters(), clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
