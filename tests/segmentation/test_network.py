import math

import pytest
import torch
from torch import nn

from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.segmentation.lovasz import lovasz_softmax
from splatsense.segmentation.network import Output, Segmenter, offset_loss, segmentation_loss, semantic_loss
from splatsense.sparse import SparseTensor
from splatsense.training.batch_norm import BatchNorm1d

SMALL = UNetConfig(stem_channels=8, stem_kernel=3, channels=(8, 8), layers=(1, 1))


def voxels(count=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 12, (count, 3), generator=generator).unique(dim=0)
    coordinates = torch.cat([torch.zeros(len(cells), 1), cells], dim=1).int()
    return SparseTensor(coordinates, torch.randn(len(cells), 6, generator=generator))


def test_shapes():
    output = Segmenter(SMALL, 5, instances=True).eval()(voxels())
    assert output.offsets is not None
    assert output.features.shape[1:] + output.logits.shape[1:] + output.offsets.shape[1:] == (8, 5, 3)
    assert Segmenter(SMALL, 5).eval()(voxels()).offsets is None


def test_semantic_loss_is_cross_entropy_and_lovasz_over_labelled_voxels():
    logits, labels = torch.zeros(4, 4), torch.tensor([0, 1, -1, 3])
    losses = semantic_loss(logits, labels, 0.5)
    assert float(losses["cross_entropy"]) == pytest.approx(math.log(4))
    assert float(losses["loss"]) == pytest.approx(math.log(4) + 0.5 * float(lovasz_softmax(logits, labels)))
    assert semantic_loss(logits, labels, 0.0).keys() == {"loss", "cross_entropy"}
    without = semantic_loss(logits, torch.full((4,), -1), 1.0)
    assert {name: float(value) for name, value in without.items()} == {"loss": 0, "cross_entropy": 0, "lovasz": 0}  # as ever


def test_offset_loss_by_hand():
    truth = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [5.0, 5, 5]])
    counted = torch.tensor([True, True, False])
    assert {k: float(v) for k, v in offset_loss(truth, truth, counted).items()} == {"offset_l1": 0, "offset_direction": -1}
    losses = offset_loss(torch.tensor([[0.0, 1, 0], [0, 1, 0], [9, 9, 9]]), truth, counted)
    assert float(losses["offset_l1"]) == (2 + 1) / 2
    assert float(losses["offset_direction"]) == pytest.approx(-(0 + 1) / 2)


def test_pointgroup_sums_its_losses():
    logits, offsets = torch.randn(6, 3), torch.randn(6, 3)
    labels, counted = torch.tensor([0, 1, 2, 0, 1, -1]), torch.tensor([True] * 5 + [False])
    losses = segmentation_loss(Output(logits, logits, offsets), labels, torch.randn(6, 3), counted, 0.0)
    parts = losses["cross_entropy"] + losses["offset_l1"] + losses["offset_direction"]
    assert float(losses["loss"]) == pytest.approx(float(parts))


def test_all_batch_statistics_are_those_of_all_processes():
    network = Segmenter(SMALL, 3, instances=True)
    network.freeze_backbone()  # makes the probe's
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 5
    assert all(isinstance(norm, BatchNorm1d) for norm in norms)


def test_a_frozen_backbone_stays_as_it_is():
    network = Segmenter(SMALL, 3)
    network.freeze_backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], lr=1.0)
    network(voxels()).logits.square().mean().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed > {"classes.linear.weight", "classes.linear.bias"}
    assert all(name.startswith("classes.") for name in changed)
