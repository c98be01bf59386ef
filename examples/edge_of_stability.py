"""Gradient descent at the edge of stability: lambda_max rises to 2 / lr and stays (Cohen et al. 2021, arXiv:2103.00065).

python examples/edge_of_stability.py               # the digits: 2 / lr = 10
python examples/edge_of_stability.py cifar10:PATH  # 1,000 images of 4 classes: 2 / lr = 100 (Cohen et al. 2024)
"""

import sys

import torch
from torch import nn
from torch.nn.functional import one_hot

import landscape as ls
from landscape.tasks import read_data

spec = sys.argv[1] if len(sys.argv) > 1 else "digits"
classes, lr, steps = (10, 0.2, 800) if spec == "digits" else (4, 0.02, 3000)
data = read_data(spec)
chosen = torch.cat([(data.train_y == c).nonzero()[: 1000 // classes, 0] for c in range(classes)])
x, y = data.prepare(data.train_x[chosen]).flatten(1), one_hot(data.train_y[chosen], classes).float()


def loss(output, target):
    return 0.5 * (output - target).square().sum(1).mean()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(x.shape[1], 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, classes))
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
watch = ls.Watch(model, loss, (x, y), every=steps // 32, optimizer=optimizer)
for step in range(steps + 1):
    if (check := watch(step)) is not None:
        print(f"step {step}: loss {check.loss:.4g}, lambda_max {check.measures['lambda_max'].value:.4g}", flush=True)
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()
print(watch.history)
values = watch.history.values("lambda_max")
print(f"mean over the second half of training: {values[len(values) // 2 :].mean():.4g}, 2 / lr = {2 / lr:g}")
watch.history.plot(caption=True).figure.savefig("edge_of_stability.png", dpi=180)
