"""Train the four networks that are timed and keep them in benchmarks/networks/: `python -m benchmarks.train [NAME...]`."""

import argparse
import time

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.networks import FOLDER, NETWORKS

# Epochs, learning rate. AdamW with a cosine that ends at zero; long enough for each to fit its data, as a checkpoint would.
RECIPES = {"mlp": (30, 3e-3), "resnet20": (6, 3e-3), "vit": (25, 2e-3), "gpt": (80, 3e-3)}
BATCH = 64


def fit(name: str, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network and its data; the same on the same kind of machine."""
    maker, data = NETWORKS[name]
    model, (x, y) = maker().train(), data()
    epochs, rate = RECIPES[name]
    g = torch.Generator().manual_seed(seed)
    if x.ndim == 4:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=g).split(BATCH):
            if len(rows) == BATCH:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
    return model.eval(), x, y


def main() -> None:
    """Train, write, say how well each fits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=", ".join(NETWORKS))
    for name in parser.parse_args().networks:
        started = time.perf_counter()
        model, x, y = fit(name)
        save_file({k: t.contiguous() for k, t in model.state_dict().items()}, FOLDER / f"{name}.safetensors")
        with torch.inference_mode():
            output = torch.cat([model(part) for part in x.split(256)])
        loss, hits = nn.functional.cross_entropy(output, y), (output.argmax(1) == y).float().mean()
        weights = sum(p.numel() for p in model.parameters())
        print(f"{name}: {weights:,} weights, loss {loss:.4f}, accuracy {hits:.2%}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
