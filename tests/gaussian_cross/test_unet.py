"""SpUNet: its parts and names, its symmetries, bad input, and its files."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from gaussian_cross.spunet_golden import CONFIG, draw_scene, draw_weights
from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet, UNetConfig
from splatsense.gaussian_cross.unet_weights import load_unet_weights, save_unet_weights
from splatsense.sparse import SparseTensor


@pytest.fixture
def unet() -> SpUNet:
    unet = SpUNet(CONFIG)
    unet.load_state_dict(draw_weights(unet, seed=0))
    return unet.eval()


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_scene(CONFIG.in_channels, 500, seed=1)


def test_base_has_the_names_and_shapes_of_pointcept():
    state = SpUNet(UNET_SIZES["base"]).state_dict()
    assert sum(value.numel() for name, value in state.items() if name.endswith(("weight", "bias"))) == 39_155_904
    for name, shape in {
        "conv_input.0.weight": (32, 5, 5, 5, 6),
        "conv_input.1.running_mean": (32,),
        "down.3.0.weight": (256, 2, 2, 2, 128),
        "enc.2.block3.conv2.weight": (128, 3, 3, 3, 128),
        "enc.3.block5.bn1.num_batches_tracked": (),
        "up.0.0.weight": (96, 2, 2, 2, 96),
        "up.3.0.weight": (256, 2, 2, 2, 256),
        "dec.0.block0.proj.0.weight": (96, 1, 1, 1, 128),
        "dec.0.block0.proj.1.bias": (96,),
        "dec.3.block0.conv1.weight": (256, 3, 3, 3, 384),
    }.items():
        assert state[name].shape == shape
    assert "enc.0.block0.proj.0.weight" not in state


def test_permuting_the_voxels_permutes_the_output(unet, scene):
    cells, features = scene
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    output = unet(SparseTensor(cells, features))
    assert torch.equal(unet(SparseTensor(cells[order], features[order])), output[order])


def test_moving_by_the_total_stride_moves_the_output(unet, scene):
    cells, features = scene[0], scene[1].double()  # sums run in another order
    output = unet.double()(SparseTensor(cells, features))
    moved = cells + torch.tensor([0, -5, 3, 100], dtype=torch.int32) * unet.total_stride
    torch.testing.assert_close(unet(SparseTensor(moved, features)), output, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(unet(SparseTensor(cells + torch.tensor([0, 1, 0, 0]), features)), output, atol=1e-2)


def test_scenes_of_a_batch_do_not_meet(unet, scene):
    cells, features = scene
    output = unet(SparseTensor(cells, features))
    for batch in (0, 1):
        rows = cells[:, 0] == batch
        alone = unet(SparseTensor(cells[rows], features[rows]))
        torch.testing.assert_close(alone, output[rows], rtol=1e-4, atol=1e-4)


def test_float32_equals_float64(unet, scene):
    cells, features = scene
    output = unet(SparseTensor(cells, features))
    exact = unet.double()(SparseTensor(cells, features.double()))
    torch.testing.assert_close(output.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", UNET_SIZES)
def test_three_voxels(size):
    unet = SpUNet(UNET_SIZES[size])
    cells = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 40, 2, 3]], dtype=torch.int32)
    output = unet(SparseTensor(cells, torch.randn(3, 6)))
    output.sum().backward()
    assert output.shape == (3, unet.out_channels)
    assert output.isfinite().all()


def test_a_step_learns(scene):
    cells, features = scene
    torch.manual_seed(0)
    unet = SpUNet(CONFIG)
    target = cells[:, 1:].float() / 20
    head = torch.nn.Linear(unet.out_channels, 3)
    optimizer = torch.optim.Adam([*unet.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(20):
        loss = (head(unet(SparseTensor(cells, features))) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_channels(unet, scene):
    cells, features = scene
    with pytest.raises(DataError, match="3 channels, the network takes 5"):
        unet(SparseTensor(cells, features[:, :3]))


@pytest.mark.parametrize(
    "wrong",
    [{"channels": (32, 32)}, {"channels": (), "layers": ()}, {"stem_kernel": 4}, {"in_channels": 0}, {"layers": (0,) * 8}],
)
def test_bad_config(wrong):
    with pytest.raises(DataError, match="UNetConfig"):
        UNetConfig(**wrong)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_checkpoints_of_pointcept_load(unet, tmp_path, prefix):
    path = tmp_path / "spunet.safetensors"
    classifier = {f"{prefix}final.weight": torch.zeros(20, 1, 1, 1, 12), f"{prefix}final.bias": torch.zeros(20)}
    save_file({prefix + name: value for name, value in unet.state_dict().items()} | classifier, path)
    other = SpUNet(CONFIG)
    load_unet_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in unet.state_dict().items())


def test_saved_weights_load(unet, tmp_path):
    path = tmp_path / "spunet.safetensors"
    save_unet_weights(unet, path, prefix="backbone.")
    assert set(load_file(path)) == {f"backbone.{name}" for name in unet.state_dict()}
    other = SpUNet(CONFIG)
    load_unet_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in unet.state_dict().items())


def test_checkpoints_that_do_not_fit(unet, tmp_path):
    path = tmp_path / "spunet.safetensors"
    save_unet_weights(unet, path)
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + ".*it lacks .* and .* more"):
        load_unet_weights(SpUNet(UNET_SIZES["base"]), path)
    state = load_file(path)
    save_file(state | {"enc.0.block9.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"also has enc\.0\.block9\.conv1\.weight"):
        load_unet_weights(unet, path)
    save_file(state | {"down.0.0.weight": state["down.0.0.weight"].permute(1, 2, 3, 4, 0).contiguous()}, path)
    with pytest.raises(CheckpointError, match=r"down\.0\.0\.weight is .*spconv 1\.x"):
        load_unet_weights(unet, path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_unet_weights(unet, path)
    with pytest.raises(CheckpointError, match="only safetensors are read"):
        load_unet_weights(unet, tmp_path / "model_best.pth")
    with pytest.raises(CheckpointError, match="ends in"):
        save_unet_weights(unet, tmp_path / "model.pth")
