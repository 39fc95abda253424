#!/usr/bin/env python3
"""Times the training step that `igcsearch bench` times, in PyTorch on the CPU.

    igcsearch bench --threads 2 && python3 torch_step.py 2 && igcsearch bench --threads 2

The one argument is the number of threads. For each pair of Table 1 (i): GFLOP/s
(6 operations for each multiply-add), the better of PyTorch's two layouts, each
the median of three steps after one that is not counted.
"""
import statistics, sys, time
import torch
import torch.nn.functional as F
from torch import nn

PAIRS = [(64, 1), (40, 2), (28, 3), (12, 6), (6, 9), (5, 10), (3, 13), (2, 16), (1, 23)]
BATCH, CLASSES, BLOCKS = 64, 100, 6


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


def seconds(L, M, layout):
    net = network(L, M).to(memory_format=layout)
    x = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=layout)
    y = torch.arange(BATCH) % CLASSES
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        opt.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        opt.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


torch.set_num_threads(int(sys.argv[1]))
for L, M in PAIRS:
    best = min(seconds(L, M, layout) for layout in (torch.contiguous_format, torch.channels_last))
    madds = (BLOCKS * (9 * L * M * M + M * L * L) + 27 * L * M) * 1024 + CLASSES * L * M
    print(f"L{L}M{M} {6 * madds * BATCH / best / 1e9:.1f} GFLOP/s, step {1e3 * best:.1f} ms", flush=True)
