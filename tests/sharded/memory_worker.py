"""One of several gloo processes: what a Lanczos run takes beyond a training step. Started by test_sharded_objective.py."""

import json
import resource
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import landscape as ls

BASIS, WIDTH, DEPTH = 24, 512, 16


def peak() -> int:
    """Most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    warnings.filterwarnings("ignore", message=".*_register_pre_backward_hook.*")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh())))
    for layer in net[::2]:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    x = torch.randn(2 * dist.get_world_size(), WIDTH)
    objective = ls.ShardedObjective(net, nn.MSELoss(), [(x[i : i + 2], x[i : i + 2]) for i in range(0, len(x), 2)], step=0.1)
    for _ in range(3):
        objective.gradient()
    before = peak()
    pairs = objective.eigenpairs(basis_size=BASIS, tol=1e-9, max_matvecs=BASIS + 6)
    took = torch.tensor(float(peak() - before))
    dist.all_reduce(took, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump({"took": float(took), "vector": 4 * objective.dim, "products": pairs.matvecs}, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
