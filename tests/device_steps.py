"""What `test_devices` starts: `device_steps.py DEVICE OUT` does everything that runs on a device, there and then on the CPU.

DEVICE is "cuda", or "pretend" for that of `pretend_gpu`. OUT becomes JSON: for each step the numbers that it found on both, or
where it failed. Training goes through the functions behind the commands; on "cuda" they choose the device themselves.
"""

import contextlib
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pretend_gpu
from clip_gs.conftest import FakeTeacher, make_boxes
from clip_gs.test_tokenizer import SMALL as SMALL_ENCODER
from gaussian_cross.conftest import make_small
from render.scenes import random_scene, with_gradients
from scene_contrast.conftest import make_small as make_small_contrast
from scene_files import write_seven_scenes
from segmentation_scenes import SMALL, room, write_rooms
from splatsense.clip_gs import pretrain as clip_gs
from splatsense.clip_gs import pretrain_config
from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.model import load_model
from splatsense.clip_gs.triplets import TripletConfig, make_triplets
from splatsense.corpora.recordings import RecordingSettings, read_recording
from splatsense.gaussian_cross import pretrain as gaussian_cross
from splatsense.gaussian_cross.model import load_backbone, save_backbone
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.gaussians import Gaussians
from splatsense.io import save
from splatsense.labels import SCANNET20
from splatsense.library import Library
from splatsense.native import pointer
from splatsense.render import RasterSettings, render_batch
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scene_contrast.pretrain import pretrain_contrast
from splatsense.scenes import save_scene
from splatsense.segmentation.config import ClusterConfig, SegmentationConfig
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.predict import predict
from splatsense.segmentation.train import train_segmentation
from splatsense.training.metrics import METRICS, read_metrics
from splatsense.training.processes import Processes

Numbers = list[float]
STEPS: dict[str, Callable[[Path, torch.device], Numbers]] = {}
TRIPLETS = TripletConfig(method="surface", gaussians=256, views=3, size=32)


def step(function: Callable[[Path, torch.device], Numbers]) -> Callable[[Path, torch.device], Numbers]:
    """Marks what is done on each device; its folder is its own but for `prepared`."""
    STEPS[function.__name__] = function
    return function


def prepared(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once, on the CPU, for both devices."""
    folder = Path(tempfile.gettempdir(), name)
    if not folder.exists():
        make(folder)
    return folder


def losses(run: Path) -> Numbers:
    return [line["loss"] for line in read_metrics(run / METRICS)]


@step
def mixing_devices(out: Path, device: torch.device) -> Numbers:
    """What fails between two devices: if it did not, no other step would tell anything."""
    here, there = torch.ones(3, device=device), torch.ones(3)
    attempts: list[Callable[[], object]] = [
        lambda: here + there,
        lambda: torch.where(there > 0, here, 0),
        lambda: torch.nn.Linear(3, 2)(here),
        lambda: torch.stack([here.sum(), there.sum()]),
        lambda: there[here.long()],
        lambda: torch.rand(3, device=device, generator=torch.Generator()),
        lambda: here.numpy(),
        lambda: pointer(here),
    ]
    for attempt in attempts:
        with contextlib.nullcontext() if device.type == "cpu" else pytest.raises((RuntimeError, TypeError, ValueError)):
            attempt()
    allowed = here[torch.tensor([0, 2])].sum() + there[0]  # indices and numbers may come from the CPU
    return [allowed.item()]


def train_clip_gs(out: Path, **changes: object) -> Numbers:
    triplets = prepared("triplets", lambda folder: build_triplets(make_boxes(), folder, TRIPLETS))
    settings: dict[str, object] = {"epochs": 1, "precision": "float32", "patch_dropout": 0.0, "drop_path": 0.0}
    config = pretrain_config.PretrainConfig(
        triplets=(str(triplets),), out=str(out), batch_size=4, views=2, log_every=1, prefetch=0, ema=0.5,
        **settings | changes,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_gs, "load_teacher", lambda name: FakeTeacher())
        patch.setattr(pretrain_config, "encoder_config", lambda size, dim: replace(SMALL_ENCODER, embed_dim=dim))
        clip_gs.pretrain(config)
        clip_gs.pretrain(config)  # from its checkpoint, to the same end
    return losses(out)


@step
def clip_gs_training(out: Path, device: torch.device) -> Numbers:
    return train_clip_gs(out, holdout="red", epochs=2)


@step
def clip_gs_in_bfloat16(out: Path, device: torch.device) -> Numbers:
    return train_clip_gs(out, precision="bfloat16")


@step
def clip_gs_in_parts(out: Path, device: torch.device) -> Numbers:
    """With dropout, whose numbers differ from device to device."""
    dropout = {"patch_dropout": 0.5, "drop_path": 0.2}
    found = train_clip_gs(out, accumulate=2, checkpointing=True, precision="bfloat16", **dropout)
    return [float(all(loss < 10 for loss in found))]


@step
def clip_gs_embedding(out: Path, device: torch.device) -> Numbers:
    """Splats on the device and on the CPU, by the bundled model; and a library that embeds there."""
    model = load_model(device=device)
    splat = Gaussians(*(value.float() for value in vars(random_scene(300, 0, 1, 8, 8, 1, seed=2)[0]).values()))
    both = torch.cat([model.encode_gaussians([splat.to(device)]), model.encode_gaussians([splat, splat])])
    assert both.device.type == "cpu"
    (out / "files").mkdir(parents=True)
    save(splat, out / "files" / "splat.ply")
    with contextlib.closing(Library(out / "library", model)) as library:
        assert library.add(out / "files", progress=False).indexed == 1
        scores = [hit.score for hit in library.search("a chair")]
    return [*scores, *(both @ model.encode_text(["a chair", "a ball"]).T).flatten().tolist()]


@step
def triplets(out: Path, device: torch.device) -> Numbers:
    """The batched fit, with relocation."""
    config = TripletConfig(gaussians=60, views=4, size=16, steps=(1, 2), held_out=1)
    made = make_triplets(make_boxes()[:2], config, str(device))
    assert not any(isinstance(each, Exception) for each in made), made
    return [each.info["psnr"] for each in made]


@step
def rendering(out: Path, device: torch.device) -> Numbers:
    """The reference, and what "auto" takes, with gradients of all but the intrinsics; one of the objects has no view."""
    found = []
    scenes = [(random_scene(n, 2, 2, 33, 21, 1, seed=n), views) for n, views in ((40, 2), (25, 1), (5, 0))]
    for settings, backend in ((RasterSettings(antialiased=True, depth="median"), "reference"), (RasterSettings(), "auto")):
        drawn, leaves = zip(
            *(
                with_gradients(gaussians.to(device), features.to(device), torch.float32)
                for (gaussians, features, _), _ in scenes
            ),
            strict=True,
        )
        images = render_batch(
            drawn,
            [cameras.to(device)[:views] for (_, _, cameras), views in scenes],
            features=[each["features"] for each in leaves],
            background=torch.ones(3, device=device),
            settings=settings,
            backend=backend,
        )
        values = torch.cat([images.color, images.features, images.depth[..., None], images.alpha[..., None]], dim=-1)
        values.square().mean().backward()
        found += [values.square().mean().item(), *(leaf.grad.norm().item() for each in leaves[:2] for leaf in each.values())]
    return found


@step
def gaussian_cross_training(out: Path, device: torch.device) -> Numbers:
    """With the mini teacher's features, and the report."""
    scene = prepared("scene", make_scene)
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        config = PretrainConfig(
            scenes=(str(scene / "train"),), validation=(str(scene / "val"),), out=str(out), steps=2, log_every=1,
            teacher="mini:block:32", prefetch=0,
        )  # fmt: skip
        gaussian_cross.pretrain(config)
        gaussian_cross.pretrain(config)
    assert (out / "report.html").is_file()
    return losses(out)


def make_scene(folder: Path) -> None:
    frames = write_seven_scenes(folder / "recording" / "seq-01")
    K = frames.cameras.K[0].tolist()
    (folder / "recording" / "camera-intrinsics.txt").write_text("\n".join(" ".join(map(str, row)) for row in K) + "\n")
    scene = read_recording(folder / "recording" / "seq-01", folder / "recording", RecordingSettings(voxel=0.04))
    for split in ("train", "val"):
        save_scene(scene, folder / split / "room")


@step
def scene_contrast_training(out: Path, device: torch.device) -> Numbers:
    scene = prepared("scene", make_scene)
    with pytest.MonkeyPatch.context() as patch:
        make_small_contrast(patch)
        pretrain_contrast(
            ContrastConfig((str(scene / "train"),), str(out), steps=2, batch_size=2, pairs=200, log_every=1, dim=16, prefetch=0)
        )
    return losses(out)


def train_on_rooms(out: Path, **changes: object) -> Numbers:
    rooms = prepared("rooms", write_rooms)
    backbone = prepared("backbone", lambda folder: save_backbone(folder, SpUNet(SMALL), "small", 0.1, {}))
    settings: dict[str, object] = {"protocol": "finetune", "task": "instance"}
    train_segmentation(
        SegmentationConfig(
            str(rooms),
            str(out),
            backbone=str(backbone),
            voxel=0.1,
            batch_size=2,
            crop_points=0,
            steps=2,
            log_every=1,
            cluster=ClusterConfig(1.5, 5, 20),
            prefetch=0,
            **settings | changes,
        )
    )
    return losses(out)


@step
def segmentation_training(out: Path, device: torch.device) -> Numbers:
    return train_on_rooms(out)


@step
def segmentation_in_bfloat16(out: Path, device: torch.device) -> Numbers:
    return train_on_rooms(out, precision="bfloat16", task="semantic")


@step
def segmentation_probe(out: Path, device: torch.device) -> Numbers:
    return train_on_rooms(out, protocol="probe", task="semantic")


@step
def segmentation_probe_of_cached_features(out: Path, device: torch.device) -> Numbers:
    return train_on_rooms(out, protocol="probe", task="semantic", cached=True)


@step
def prediction(out: Path, device: torch.device) -> Numbers:
    """In tiles, by the bundled model; and features of its backbone."""
    points = points_of_scene(room(), SCANNET20)
    model = load_segmentation_model("rooms20-tiny")
    model.network.to(device)
    backbone = load_backbone("rooms20-tiny")
    backbone.network.to(device)
    features = backbone.encode(points.coord, (points.color * 255).byte(), points.normal)
    assert features.device.type == "cpu"
    found = predict(model, points, tile_voxels=6000)
    return [float(found.confidence.mean()), float(features.square().mean())]


@contextlib.contextmanager
def training_on(device: torch.device) -> Iterator[None]:
    """Runs that begin meanwhile are on this device; on "cuda" they are so by themselves."""
    original = Processes.__init__

    def begin(self: Processes) -> None:
        original(self)
        if device.type == "cuda":
            assert self.device.type == "cuda"
        else:
            self.device = device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "__init__", begin)
        yield


def run(name: str, device: torch.device, folder: Path) -> Numbers | str:
    """The numbers of a step, or why it failed."""
    torch.manual_seed(0)
    mode = pretend_gpu.PretendMode() if device.type == pretend_gpu.NAME else contextlib.nullcontext()
    try:
        with training_on(device), mode:
            return STEPS[name](folder / f"{name}-{device.type}", device)
    except Exception:  # whatever it is, the other steps go on
        return traceback.format_exc()


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = False  # or convolutions differ by a thousandth
    name, out = sys.argv[1:3]
    device = pretend_gpu.register() if name == pretend_gpu.NAME else torch.device(name, 0)
    found: dict[str, dict[str, Numbers | str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = temporary
        for name in sys.argv[3:] or STEPS:
            found[name] = {each.type: run(name, each, Path(temporary)) for each in (device, torch.device("cpu"))}
            Path(out).write_text(json.dumps(found))
