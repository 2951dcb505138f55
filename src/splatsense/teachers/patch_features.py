"""`PatchTeacher`: vision transformers of transformers as dense teachers; what DINOv2 and RADIO share (extra `dense`).

Design
- Architectures are those of transformers, which needs no torchvision for them. They are made of a table and of the file's
  shapes, so weights are one safetensors file, and nothing of a repository is run.
- Files have the names under which the weights are published; what is missing, unknown or of another size is an error.
- An image is resized to the nearest multiple of the patch along each axis, so that the grid of features covers all of it.
- Images are taken one at a time: a feature does not depend on its neighbours in the batch.
- The hash covers weights and preprocessing. Weights that come only as a pickle are refused.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from splatsense.errors import CheckpointError, DataError
from splatsense.files import sha256_of

PREPROCESSING = "patches 1: bicubic with antialiasing to the nearest multiple of the patch"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Architecture:
    """A published vision transformer.

    Attributes:
        repository: on the Hugging Face hub.
        model: its class in transformers.
        dim: of a feature.
        patch: side of a patch in pixels.
        settings: of its configuration in transformers, given the weights under their published names.
        features: (1, patches, dim) of (1, 3, H, W) colours in [0, 1].
        passed_over: beginnings of the names of weights that the features do not need.
    """

    repository: str
    model: str
    dim: int
    patch: int
    settings: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    features: Callable[[nn.Module, Tensor], Tensor]
    passed_over: tuple[str, ...] = ()


class PatchTeacher:
    """A frozen vision transformer with a feature for every patch. Weights are read, and fetched if need be, at the first image.

    Args:
        name: what `load_dense_teacher` knows it by.
        architecture: what the weights are of.
        weights: a safetensors file, or a folder that holds `model.safetensors`; None lets huggingface_hub fetch it.

    Raises:
        CheckpointError: transformers is not installed, or there is no such file.
    """

    def __init__(self, name: str, architecture: Architecture, weights: str | Path | None = None) -> None:
        self.name, self.dim, self.stride = name, architecture.dim, architecture.patch
        self._architecture = architecture
        self._library = _import("transformers", name)
        self._given = None if weights is None else _local_file(name, Path(weights))
        # The number too: in a thread that makes batches ahead, "cuda" is the first GPU and not that of this process.
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def hash(self) -> str:
        """Hex id of architecture, weights and preprocessing. The weights' file is read in full the first time."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        parts = (PREPROCESSING, self._architecture.model, self._architecture.repository, sha256_of(self._file))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @torch.no_grad()
    def encode_dense(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n h2 w2 d"]:
        """(N, round(H / patch), round(W / patch), dim), at least one patch along each axis.

        Raises:
            DataError: there are no images, or features are not finite.
            CheckpointError: the weights cannot be had, or are of another architecture.
        """
        if len(images) == 0:
            raise DataError(f"{self.name}: encode_dense takes at least one image.")
        rows, columns = (max(1, round(side / self.stride)) for side in images.shape[1:3])
        maps = []
        for image in images.movedim(-1, 1).split(1):
            pixels = _resize(image.to(self._device), (rows * self.stride, columns * self.stride))
            maps.append(self._architecture.features(self._network, pixels).float().cpu().reshape(1, rows, columns, self.dim))
        found = torch.cat(maps)
        if not bool(found.isfinite().all()):
            raise DataError(f"{self.name}: its features are not finite; are the images, and the weights?")
        return found

    @cached_property
    def _file(self) -> Path:
        if self._given is not None:
            return self._given
        hub = _import("huggingface_hub", self.name)
        repository = self._architecture.repository
        try:
            return Path(hub.hf_hub_download(repository, WEIGHTS))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.name}: its weights could not be fetched ({error}). Where they can be, fetch {WEIGHTS} of {repository} "
                f"and pass the file: {self.name}:FILE.safetensors."
            ) from error

    @cached_property
    def _network(self) -> nn.Module:
        architecture, path = self._architecture, self._file
        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.name}: {path} cannot be read as safetensors ({error}).") from error
        state = {name: value for name, value in state.items() if not name.startswith(architecture.passed_over or ("\0",))}
        model_class = getattr(self._library, architecture.model)
        try:
            settings = architecture.settings(state)
        except KeyError as error:
            raise CheckpointError(
                f"{self.name}: {path} has not the weights of {architecture.repository}: no {error}."
            ) from error
        network, loaded = self._load(model_class, model_class.config_class(**settings), state)
        for what, key in (
            ("lacks", "missing_keys"),
            ("also has", "unexpected_keys"),
            ("has another size of", "mismatched_keys"),
        ):
            names = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in loaded[key])
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise CheckpointError(
                    f"{self.name}: {path} has not the weights of {architecture.repository}: "
                    f"it {what} {', '.join(names[:3])}{more}."
                )
        return network.to(self._device).eval().requires_grad_(False)

    def _load(self, model_class: Any, config: Any, state: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
        """The network and what did not fit; transformers says it in our error only, and draws no progress bar."""
        log = importlib.import_module("transformers.utils.logging")
        level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
        log.set_verbosity_error()
        log.disable_progress_bar()
        try:
            return model_class.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        finally:
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()


def parse_name(name: str, kinds: Mapping[str, Any]) -> tuple[str, str | None]:
    """The variant and the path of FAMILY:VARIANT or FAMILY:VARIANT:PATH.

    Raises:
        CheckpointError: there is no such variant.
    """
    family, _, rest = name.partition(":")
    variant, _, path = rest.partition(":")
    if variant not in kinds:
        raise CheckpointError(
            f"There is no dense teacher {name!r}; choose {family}:VARIANT or {family}:VARIANT:FILE.safetensors with VARIANT of "
            f"{', '.join(kinds)}."
        )
    return variant, path or None


def _local_file(name: str, path: Path) -> Path:
    file = path / WEIGHTS if path.is_dir() else path
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{name}: {file} is no safetensors file. Pickles are not opened, as they run code; save the state dict with "
            "safetensors.torch.save_file where you trust it."
        )
    if not file.is_file():
        raise CheckpointError(f"{name}: there is no file {file}.")
    return file


def _import(package: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{name}: needs the extra `dense`: pip install 'splatsense[dense]' ({error}).") from error


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[2:]) == size:
        return image
    return interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
