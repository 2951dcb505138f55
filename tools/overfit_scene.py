"""How well one scene can be learned: trains on a single scene and says what its views look like then.

python tools/overfit_scene.py SCENE OUT [--steps 1500] [--threads 2]
"""

import argparse
import dataclasses
import datetime
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from splatsense.gaussian_cross.pretrain import PretrainRun, mean_features, open_scenes
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.report import Evaluation, psnr, relative_depth_error
from splatsense.training.loop import LoopConfig, train


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--teacher", default="none")
    parser.add_argument("--rotate", type=float, default=0.0)
    parser.add_argument("--mask-ratio", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--color-weight", type=float, default=10.0)
    parser.add_argument("--depth-weight", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = vars(parser.parse_args())
    torch.set_num_threads(options.pop("threads"))
    config = PretrainConfig(scenes=(options.pop("scene"),), checkpoint_every=100, **options)
    data, _ = open_scenes(config)
    run = PretrainRun(config, data, mean_features(data))
    evaluation = Evaluation(run.model, data, Path(config.out))
    start = time.time()
    loop = LoopConfig(Path(config.out), config.settings(), "overfit", 100, evaluate_every=100)
    train(run, run.processes, loop, evaluation)
    minutes = (time.time() - start) / 60
    evaluation.write_report(config.batch_size)
    run.model.eval()
    with torch.no_grad():
        batch = data.fixed_sample(0, run.height)
        prediction = run.model.predict(batch)
    found = {
        "date": str(datetime.date.today()),
        "scene": data.points(0).name,
        "steps": config.steps,
        "minutes": round(minutes, 1),
        "psnr": round(psnr(prediction.rendering.color, batch.targets.color), 2),
        "relative depth error": round(relative_depth_error(prediction.rendering.depth, batch.targets.depth), 4),
        "gaussians": len(prediction.decoded[0].gaussians),
        "voxels": len(batch.coordinates),
        "settings": {
            k: v for k, v in dataclasses.asdict(config).items() if k in ("learning_rate", "color_weight", "depth_weight")
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
