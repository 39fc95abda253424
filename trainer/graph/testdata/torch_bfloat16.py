#!/usr/bin/env python3
"""Records what TestBF16AgreesWithPyTorch compares with: ten training steps of four small IGC networks in PyTorch, from
weights and pictures that both sides make by the same formula.

    python3 torch_bfloat16.py > torch_bfloat16.json      (any PyTorch from 1.13 on)

Three trainings of each are recorded:

    autocast    with torch.autocast("cpu", torch.bfloat16)
    rules       in float64, each number rounded to bfloat16 that docs/bfloat16.md says we store in it
    float32     in float32

and how far two others, as right as the first, are from it: with another layout of memory, and in float64, each number
rounded that autocast stores. A distance is the length of the difference over that of the recorded numbers.
"""
import json
import sys
import torch
import torch.nn as nn
import torch.nn.functional as F

PAIRS = [(8, 1), (4, 2), (3, 3), (2, 6)]
BLOCKS, SIDE, BATCH, CLASSES, STEPS = 2, 8, 17, 5, 10
BF16 = torch.bfloat16


def formula(tag, n):
    """n numbers in [-1, 1): the high bits of a multiplicative hash."""
    return [((i * 2654435761 + tag * 40503 + 12345) % 2**32 >> 8) / 2**23 - 1 for i in range(n)]


class Stored(torch.autograd.Function):
    """A number that is rounded to bfloat16, and its gradient too if rounds is set."""
    @staticmethod
    def forward(ctx, x, rounds):
        ctx.rounds = rounds
        return x.to(BF16).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return g.to(BF16).to(g.dtype) if ctx.rounds else g, None


class Net(nn.Module):
    """rounds says what the network rounds itself: "" nothing, "rules", or "autocast", what autocast would."""
    def __init__(self, L, M, rounds):
        super().__init__()
        self.L, self.M, G = L, M, L * M
        itself = lambda x: x
        self.activation = (lambda x: Stored.apply(x, True)) if rounds else itself
        self.weight = (lambda w: Stored.apply(w, rounds == "autocast")) if rounds else itself
        self.head = self.activation if rounds == "autocast" else itself
        self.conv0 = nn.Conv2d(3, G, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(G, eps=2e-5, momentum=0.01)
        for b in range(BLOCKS):
            block = nn.Module()
            block.primary = nn.Conv2d(G, G, 3, padding=1, groups=L, bias=False)
            block.secondary = nn.Conv2d(G, G, 1, groups=M, bias=False)
            block.bn = nn.BatchNorm2d(G, eps=2e-5, momentum=0.01)
            setattr(self, f"block{b+1}", block)
        self.fc = nn.Linear(G, CLASSES)

    def conv(self, x, conv):
        return self.activation(F.conv2d(x, self.weight(conv.weight), padding=conv.padding, groups=conv.groups))

    def forward(self, x):
        def permute(x, a, b):
            n, c, h, w = x.shape
            return x.view(n, a, b, h, w).transpose(1, 2).reshape(n, c, h, w)

        z = self.bn0(self.conv(self.activation(x), self.conv0))
        for b in range(BLOCKS):
            block = getattr(self, f"block{b+1}")
            y = self.conv(self.activation(F.relu(z)), block.primary)
            z = block.bn(permute(self.conv(permute(y, self.L, self.M), block.secondary), self.M, self.L))
        h = self.head
        return h(F.linear(h(h(F.relu(z)).mean((2, 3))), h(self.fc.weight), h(self.fc.bias)))


def train(L, M, autocast=False, rounds="", layout=torch.contiguous_format):
    dtype = torch.float64 if rounds else torch.float32
    net = Net(L, M, rounds).to(dtype)
    with torch.no_grad():
        for tag, (name, p) in enumerate(net.named_parameters()):
            v = torch.tensor(formula(tag, p.numel()), dtype=dtype).view(p.shape)
            p.copy_(1 + v / 4 if name.endswith("bn.weight") or name == "bn0.weight" else v / 2)
    net = net.to(memory_format=layout)
    flat = lambda tensors: torch.cat([t.detach().double().flatten() for t in tensors])
    opt = torch.optim.SGD(net.parameters(), weight_decay=0.01, lr=0.05, momentum=0.9, nesterov=True)
    out, losses = {}, []
    for step in range(STEPS):
        x = torch.tensor(formula(100 + step, BATCH * 3 * SIDE * SIDE), dtype=dtype).view(BATCH, 3, SIDE, SIDE)
        y = torch.tensor([(step + i * i) % CLASSES for i in range(BATCH)])
        opt.zero_grad()
        with torch.autocast("cpu", BF16, enabled=autocast):
            logits = net(x.contiguous(memory_format=layout))
        loss = F.cross_entropy(logits.to(dtype), y)
        loss.backward()
        losses.append(loss)
        if step == 0:
            out["first_logits"] = flat([logits])
            out["first_gradients"] = flat(p.grad for p in net.parameters())
        opt.step()
    out["losses"] = flat(l.view(1) for l in losses)
    out["last_logits"] = flat([logits])
    out["weights"] = flat(net.parameters())
    return out, [n for n, _ in net.named_parameters()]


def distances(a, b):
    return {k: float(f"{(a[k] - b[k]).norm() / b[k].norm():.3g}") for k in a}


def record(L, M):
    autocast, order = train(L, M, autocast=True)
    runs = {"autocast": autocast, "rules": train(L, M, rounds="rules")[0], "float32": train(L, M)[0]}
    others = {"channels_last": train(L, M, autocast=True, layout=torch.channels_last)[0],
              "float64, rounded": train(L, M, rounds="autocast")[0]}
    return {"L": L, "M": M, "order": order, "distances": {k: distances(v, autocast) for k, v in others.items()},
            "runs": {k: {n: [float(f"{x:.5g}") for x in t.tolist()] for n, t in v.items()} for k, v in runs.items()}}


torch.set_num_threads(1)
json.dump({"torch": torch.__version__, "networks": [record(L, M) for L, M in PAIRS]}, sys.stdout)
print()
