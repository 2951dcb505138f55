"""Weights of SpUNet in Pointcept's names and spconv 2.x's layout: read, checked, written.

What is in such a file: `conv_input`, `down`, `enc`, `up` and `dec` under the names our modules have too, weights as
(out, kx, ky, kz, in), and `final`, a linear classifier that the backbone has not. Segmentors of Pointcept put `backbone.`
before every name, distributed training `module.`; pre-training has further
parts beside the backbone, which are passed over.

Files are safetensors. The published `.pth` files are pickles, which are not read, as no pickle is in this project; convert one
where you trust it:

    import torch, safetensors.torch as s
    state = torch.load("model_best.pth", weights_only=True, map_location="cpu")["state_dict"]
    s.save_file({k: v.clone() for k, v in state.items()}, "spunet.safetensors")
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from splatsense.errors import CheckpointError
from splatsense.files import atomic_write
from splatsense.gaussian_cross.unet import SpUNet

PREFIXES = ("module.", "backbone.")
PARTS = ("conv_input.", "down.", "enc.", "up.", "dec.")


def load_unet_weights(unet: SpUNet, path: str | Path) -> None:
    """Copy a checkpoint of Pointcept's SpUNet-v1m1 into a network of its size.

    Args:
        unet: whose weights are overwritten.
        path: safetensors.

    Raises:
        CheckpointError: the file cannot be read, or its weights are missing, unknown or of another size.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: only safetensors are read, as pickles run code; "
            "the docstring of splatsense.gaussian_cross.unet_weights converts a .pth file."
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    unet.load_state_dict(backbone_weights(unet, state, str(path)))


def backbone_weights(unet: SpUNet, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The backbone's part of a state dict, under our names.

    Args:
        unet: which has to be of the same size.
        state: of Pointcept's SpUNet-v1m1, or of a model that holds one as `backbone`.
        source: the file, for errors.

    Raises:
        CheckpointError: a weight is missing, unknown or of another size.
    """
    found = {name: value for name, value in map(_without_prefix, state.items()) if name.startswith(PARTS)}
    expected = unet.state_dict()
    for what, names in (("lacks", set(expected) - set(found)), ("also has", set(found) - set(expected))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{source}: no SpUNet with {unet.config.layers} blocks: it {what} {', '.join(sorted(names)[:3])}{more}. "
                "Choose the network's size after the checkpoint's."
            )
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{source}: {name} is {tuple(value.shape)}, expected {tuple(expected[name].shape)}; choose the network's size "
                "after the checkpoint's (spconv 2.x has weights as out, kx, ky, kz, in; spconv 1.x has not)."
            )
    return found


def save_unet_weights(unet: SpUNet, path: str | Path, prefix: str = "") -> None:
    """Write the weights under Pointcept's names, for `strict=False` there: the classifier is not among them.

    Args:
        unet: whose weights are written.
        path: to end in .safetensors.
        prefix: put before each name, such as "backbone.".

    Raises:
        CheckpointError: the path ends in something else.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: weights are written as safetensors; give a path that ends in .safetensors.")
    state = {prefix + name: value.detach().cpu().contiguous() for name, value in unet.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(state))


def _without_prefix(item: tuple[str, Tensor]) -> tuple[str, Tensor]:
    name, value = item
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name, value
