"""A run of a small network, for the tests of what all runs share. As a script: `tiny_run.py FOLDER STEPS SECONDS_A_STEP`."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from splatsense.training.batch_norm import BatchNorm1d
from splatsense.training.loop import LoopConfig, train
from splatsense.training.optimizer import parameter_groups, update
from splatsense.training.processes import Processes
from splatsense.training.schedules import OneCycle
from splatsense.training.shares import Share, rand_rows, working_on
from training_runs import end_with_the_group

SETTINGS = {"width": 8}


class Net(nn.Module):
    """Batch normalisation and dropout: what differs between processes unless care is taken."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 8, bias=False), BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.norm(self.first(x)).relu()
        return self.second(hidden * (rand_rows(len(x), 8) > 0.3))


class TinyRun:
    """Learns the sum of four numbers."""

    batch_size = 8

    def __init__(self, steps, processes=None, pause=0.0):
        self.steps, self.pause = steps, pause
        self.processes = processes or Processes()
        self.share = self.processes.share_of(Share.whole(self.batch_size))
        torch.manual_seed(0)
        self.net = Net()
        self.parallel = self.processes.data_parallel(self.net)
        self.loss = self.processes.data_parallel(nn.MSELoss())  # learns nothing
        self.modules = {"net": self.net}
        self.schedule = OneCycle(steps)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.net.named_parameters(), lambda name: 0.05, 0.1))

    def load(self, step):
        x = self.share.of(torch.randn(self.batch_size, 4, generator=torch.Generator().manual_seed(step)))
        return {"x": x, "y": x.sum(1, keepdim=True), "step": step}

    def step(self, step, batch):
        time.sleep(self.pause)
        torch.manual_seed(step)
        self.optimizer.zero_grad()
        with working_on(self.share):
            loss = self.loss(self.parallel(batch["x"]), batch["y"])
            loss.backward()
        return {"loss": loss.item()} | update(self.optimizer, self.schedule, step, self.net.parameters(), 1.0)


def config_of(folder, **changes):
    return LoopConfig(
        **({"folder": folder, "settings": SETTINGS, "label": "tiny", "checkpoint_every": 5, "log_every": 1} | changes)
    )


if __name__ == "__main__":
    processes = Processes()
    train(TinyRun(int(sys.argv[2]), processes, float(sys.argv[3])), processes, config_of(Path(sys.argv[1])))
    processes.close()
    end_with_the_group()
