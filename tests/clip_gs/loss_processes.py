"""What `test_loss` runs in several processes: the loss on shares of a batch, and gradients averaged over processes
as data-parallel training does."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize

from splatsense.clip_gs.loss import ClipGSLoss

OBJECTS, VIEWS, DIM = 8, 3, 6


def losses_and_gradients(rank: int = 0, processes: int = 1) -> dict[str, torch.Tensor]:
    """Of one process's share of a fixed batch, in which names repeat within and across shares."""
    generator = torch.Generator().manual_seed(0)
    shapes, text = torch.randn(OBJECTS, 5, generator=generator), torch.randn(OBJECTS, DIM, generator=generator)
    images = torch.randn(OBJECTS, VIEWS, DIM, generator=generator)
    names = torch.tensor([0, 1, 1, 2, 3, 1, 0, 4])
    weight = torch.randn(DIM, 5, generator=generator)
    share = slice(rank * OBJECTS // processes, (rank + 1) * OBJECTS // processes)
    found = {}
    for voting in ("none", "raw", "softmax"):
        encoder, loss = nn.Linear(5, DIM), ClipGSLoss(voting)
        encoder.weight.data.copy_(weight)
        encoder.bias.data.zero_()
        embedded = normalize(encoder(shapes[share]), dim=-1)
        losses = loss(embedded, normalize(text, dim=-1)[share], normalize(images, dim=-1)[share], names[share])
        losses["loss"].backward()
        parameters = [*encoder.named_parameters(), *loss.named_parameters()]
        if processes > 1:
            for _, parameter in parameters:
                dist.all_reduce(parameter.grad)
                parameter.grad /= processes
        found |= {f"{voting}.{name}": value.detach() for name, value in losses.items()}
        found |= {f"{voting}.{name}.gradient": p.grad for name, p in parameters}
    return found


def run(rank: int, processes: int, folder: str) -> None:
    """Entry of a process; leaves what it found in `folder`."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    try:
        save_file(losses_and_gradients(rank, processes), Path(folder, f"{rank}.safetensors"))
    finally:
        dist.destroy_process_group()
