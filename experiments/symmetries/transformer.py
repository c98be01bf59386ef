"""A small transformer on patches of the digits: its network, and runs on true or on random labels."""

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from landscape import checkpoints
from landscape.tasks import Task, corrupt, read_data

SAMPLES, PATCH, CLASSES = 512, 2, 10


@dataclass(frozen=True)
class Recipe:
    """What determines a run: trained by Adam until the loss of all training samples, in evaluation mode, is `stop_loss`."""

    labels: str
    seed: int
    width: int = 32
    heads: int = 2
    blocks: int = 1
    hidden: int = 64
    batch_size: int = 32
    lr: float = 0.002
    epochs: int = 2000
    stop_loss: float = 0.01


class Attention(nn.Module):
    """Softmax attention of several heads, without a mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            p(x).view(b, t, self.heads, d // self.heads).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / (d // self.heads) ** 0.5, dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """Attention, then two linear layers with a rectifier between them, each after a LayerNorm and added to the stream."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc1, self.relu, self.fc2 = (
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.relu(self.fc1(self.norm2(x))))


class PatchTransformer(nn.Module):
    """Patches of 2 x 2 pixels with learned positions, blocks, a LayerNorm, the mean over the patches, a linear layer."""

    def __init__(self, width: int, heads: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, PATCH, stride=PATCH)
        self.position = nn.Parameter(0.02 * torch.randn(1, (8 // PATCH) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def trained(recipe: Recipe, folder: Path) -> Path:
    """The checkpoint of a run, trained once. It holds the recipe and what came of it."""
    path = folder / f"transformer-{recipe.labels}-{recipe.seed}.safetensors"
    if path.exists():
        found = (checkpoints.read(path).recipe or {}).get("training")
        if found != asdict(recipe):
            raise SystemExit(f"expected the run {asdict(recipe)} in {path}, found {found}; delete it to train again")
        return path
    started, network, (x, y) = time.perf_counter(), initial(recipe), training_data(recipe)
    order = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr, fused=True)
    loss, epoch = float("inf"), 0
    while loss > recipe.stop_loss:
        if epoch == recipe.epochs:
            raise SystemExit(f"expected {path.stem} to reach loss {recipe.stop_loss} in {epoch} epochs, found {loss:.3g}")
        for rows in torch.randperm(len(x), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
        epoch += 1
        with torch.inference_mode():
            loss = float(nn.functional.cross_entropy(network(x), y))
    how = {
        "epochs": epoch,
        "loss": loss,
        "seconds": round(time.perf_counter() - started, 1),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    checkpoints.save(path, state, recipe={"training": asdict(recipe), "final": how}, extras={"train_labels": y})
    print(f"{path.stem}: {json.dumps(how)}", flush=True)
    return path


def initial(recipe: Recipe) -> PatchTransformer:
    """The network before training; PyTorch's default weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return PatchTransformer(recipe.width, recipe.heads, recipe.blocks, recipe.hidden)


def training_data(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The first training digits, with their labels or with labels drawn from the run's seed."""
    data = read_data("digits").first(SAMPLES)
    found = corrupt(data.train_x, data.train_y, recipe.labels, classes=CLASSES, seed=recipe.seed)
    return data.prepare(found.x), found.y


def task(recipe: Recipe, path: Path) -> Task:
    """The trained network on its training data and on the clean test digits."""
    network, data = initial(recipe), read_data("digits")
    checkpoints.fit(network, checkpoints.read(path).weights())
    return Task(
        network, nn.CrossEntropyLoss(), training_data(recipe), (data.prepare(data.test_x), data.test_y), name="digits patches"
    )
