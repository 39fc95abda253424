#!/usr/bin/env python3
"""Times the training step that `igcsearch bench` times, in PyTorch on the CPU.

    igcsearch bench --pairs fig3a,fig3b --peer trainer/testdata/torch_step.py

Of PyTorch's two layouts each pair reports the faster one, the median of --steps
steps after one that is not counted. Prints a JSON line for each pair: L, M,
layout, step_s in seconds.
"""
import argparse, json, statistics, time
import torch
import torch.nn.functional as F
from torch import nn

CLASSES, BLOCKS = 100, 6


class Shuffle(nn.Module):
    """Moves channel l*b + m to m*a + l, for l < a and m < b."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return x.unflatten(1, (self.a, self.b)).transpose(1, 2).flatten(1, 2)


def network(L, M):
    G = L * M
    layers = [nn.Conv2d(3, G, 3, padding=1, bias=False), nn.BatchNorm2d(G, eps=2e-5, momentum=0.01), nn.ReLU()]
    for _ in range(BLOCKS):
        layers += [nn.Conv2d(G, G, 3, padding=1, groups=L, bias=False), Shuffle(L, M),
                   nn.Conv2d(G, G, 1, groups=M, bias=False), Shuffle(M, L),
                   nn.BatchNorm2d(G, eps=2e-5, momentum=0.01), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(G, CLASSES))


def seconds(L, M, layout, a):
    net = network(L, M).to(memory_format=layout)
    x = torch.randn(a.batch, 3, 32, 32).contiguous(memory_format=layout)
    y = torch.arange(a.batch) % CLASSES
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    times = []
    for _ in range(a.steps + 1):
        begin = time.perf_counter()
        opt.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        opt.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--pairs", default="40x2", help="LxM,LxM,…")
p.add_argument("--batch", type=int, default=64)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--steps", type=int, default=3)
a = p.parse_args()
torch.set_num_threads(a.threads)
for pair in a.pairs.split(","):
    L, M = map(int, pair.split("x"))
    best, layout = min((seconds(L, M, layout, a), str(layout)) for layout in (torch.contiguous_format, torch.channels_last))
    print(json.dumps({"L": L, "M": M, "layout": layout, "torch": torch.__version__, "step_s": best}), flush=True)
