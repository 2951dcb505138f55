"""The processes of a run, over Hugging Face Accelerate: one by itself, or many under `torchrun` or `accelerate launch`.

Design
- The same command runs on a laptop and on many GPUs; what a process is told by its launcher is all that differs.
- The batch size is that of all processes together and each works on an equal `Share`, so the number of processes is no
  setting of the method: n processes take the steps one process would, up to the order of sums.
- Precision is a setting of the run and not of the launcher, for the same reason.
- Data-parallel training only: Accelerate's other plug-ins cut the weights up, which our checkpoints do not know.
- A process must not end before the threads of its group have: one that still has a tensor to release while Python is being
  taken down aborts the process, now and then, after all is done. They end with the group, so nothing may hold on to that.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import nn

from splatsense.errors import DataError
from splatsense.training.collectives import sum_over_processes
from splatsense.training.shares import Share

# The others wait while one embeds a new corpus; a process that dies is noticed by the launcher.
PATIENCE = timedelta(days=1)
DATA_PARALLEL = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Processes:
    """This process and those it trains together with.

    Attributes:
        device: of this process.
        count: of processes.
        rank: of this one, from 0.

    Raises:
        DataError: Accelerate is configured for something else than data-parallel training.
    """

    def __init__(self) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            importlib.import_module("torch._dynamo.utils")  # imported later, as data-parallel modules do, it keeps the group
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[patience])
        if self._accelerator.distributed_type not in DATA_PARALLEL:
            kind = self._accelerator.distributed_type.value
            raise DataError(f"Accelerate is configured for {kind}; only data-parallel training on CPUs or GPUs is supported.")
        self.device = self._accelerator.device
        self.count = self._accelerator.num_processes
        self.rank = self._accelerator.process_index

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def share_of(self, rows: Share) -> Share:
        """This process's part of some rows. Raises DataError when they do not divide among the processes."""
        return rows.split(self.count, "processes")[self.rank]

    def data_parallel(self, module: nn.Module) -> nn.Module:
        """A wrapper that averages gradients over the processes in its backward pass, or `module` where nothing learns."""
        learns = any(parameter.requires_grad for parameter in module.parameters())
        return self._accelerator.prepare_model(module) if self.count > 1 and learns else module

    def without_averaging(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Leave the gradients of `data_parallel` modules as they are, to average them in a later backward pass."""
        return self._accelerator.no_sync(module)

    def agree(self, values: Mapping[str, float], stop: bool) -> tuple[dict[str, float], bool]:
        """Means of values over the processes, and whether any of them is to stop. Every process must call it."""
        if self.count == 1:
            return dict(values), stop
        numbers = torch.tensor([*values.values(), float(stop)], dtype=torch.float64)
        total = sum_over_processes(numbers.to(self.device)).tolist()
        return {name: number / self.count for name, number in zip(values, total, strict=False)}, total[-1] > 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        self._accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def one_first(self) -> Iterator[None]:
        """One process per machine runs the block before the others do, so that they find what it cached."""
        with self._accelerator.local_main_process_first():
            yield

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1:
            self._accelerator.end_training()


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """What matrix products are computed in: None is float32.

    Raises:
        DataError: the device cannot do it.
    """
    if precision == "float32":
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DataError("--precision bfloat16: this GPU does not have it; use --precision float32.")
    return torch.bfloat16
