#!/usr/bin/env python3
"""Replays a trace of igcsearch in PyTorch and compares everything in it.

    igcsearch trace quickstart --pair 9x2 --seed 0 --steps 5 -o trace.npz
    python3 replay_trace.py trace.npz          (needs numpy and PyTorch)

Prints the largest relative differences, in norm, of the first step's tensors
and of all; exits 1 if one is above its bound. The replay is in float32 too:
where rounding puts a value on the other side of a ReLU's kink, gradients before
it differ by some 1e-3 from those in float64, ours and PyTorch's alike. Later
steps start from weights that differ in their last bits, so some kinks fall
differently, and their bounds are wide: for a sharp look at another step, trace
fewer steps from another seed.
"""
import sys
import numpy as np
import torch
import torch.nn.functional as F

t = np.load(sys.argv[1])
init = {k[5:]: torch.tensor(t[k]) for k in t.files if k.startswith("init/")}
stats = {k for k in init if "running_" in k}
p = {k: v.clone().requires_grad_(k not in stats) for k, v in init.items()}
blocks = len([k for k in p if k.endswith("primary.weight")])
G, M = p["block1.primary.weight"].shape[:2]
L = G // M
WEIGHT_DECAY, MOMENTUM = 1e-4, 0.9


def permute(x, a, b):
    n, c, h, w = x.shape
    return x.view(n, a, b, h, w).transpose(1, 2).reshape(n, c, h, w)


measured = None  # or of each normalisation: the sums of its input and of the squares, how many values


def norm(x, name):
    if measured is not None:
        z = x.double().transpose(0, 1).flatten(1)
        s, q, n = measured.get(name, (0, 0, 0))
        measured[name] = s + z.sum(1), q + (z * z).sum(1), n + z.shape[1]
    return F.relu(F.batch_norm(x, p[name + ".running_mean"], p[name + ".running_var"], p[name + ".weight"], p[name + ".bias"],
                               training=True, momentum=0.01, eps=2e-5))


def forward(x):
    x = norm(F.conv2d(x, p["conv0.weight"], padding=1), "bn0")
    for k in range(1, blocks + 1):
        b = f"block{k}."
        y = permute(F.conv2d(x, p[b + "primary.weight"], padding=1, groups=L), L, M)
        x = norm(permute(F.conv2d(y, p[b + "secondary.weight"], groups=M), M, L), b + "bn")
    return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


worst = {}


def compare(kind, got, want, floor=1e-30):
    want = torch.tensor(np.asarray(want)).double()
    d = ((got.detach().double() - want).norm() / (want.norm() + floor)).item()
    for key in [kind] + ["first " + kind] * (step == 0 and not kind.startswith("final")):
        worst[key] = max(worst.get(key, 0), d)


velocity = {k: torch.zeros_like(v) for k, v in p.items()}
average = {k: torch.zeros_like(v) for k, v in p.items()}
step = 0
while f"step/{step}/loss" in t.files:
    s = f"step/{step}/"
    logits = forward(torch.tensor(t[s + "images"]))
    loss = F.cross_entropy(logits, torch.tensor(t[s + "labels"]))
    grads = torch.autograd.grad(loss, [p[k] for k in p if k not in stats])
    compare("logits", logits, t[s + "logits"])
    compare("loss", loss, t[s + "loss"])
    with torch.no_grad():
        # At L = 1 the normalisation undoes what secondary.weight does: its
        # gradient is rounding alone, so it is measured against all of them.
        floor = 1e-3 * sum(g.double().norm() ** 2 for g in grads) ** 0.5
        for name, g in zip([k for k in p if k not in stats], grads):
            compare("gradients", g, t[s + "grad/" + name], floor)
            g = g + WEIGHT_DECAY * p[name]
            v = velocity[name]
            v.mul_(MOMENTUM).add_(g)
            p[name] -= float(t[s + "lr"]) * (g + MOMENTUM * v)
            if s + "average" in t.files:
                average[name] += float(t[s + "average"]) * (p[name] - average[name])
    step += 1
for name, v in p.items():
    compare("final statistics" if name in stats else "final parameters", v, t["final/" + name])
if any(k.startswith("evaluated/") for k in t.files):
    # What an evaluation uses: averages of the weights, and mean and variance over
    # batches of which each was normalised by its own.
    with torch.no_grad():
        if "step/0/average" in t.files:
            for name in p.keys() - stats:
                p[name].copy_(average[name])
        measured = {}
        for x in t["statistics/images"] if "statistics/images" in t.files else []:
            forward(torch.tensor(x))
        for name, (s, q, n) in measured.items():
            p[name + ".running_mean"].copy_(s / n)
            p[name + ".running_var"].copy_((q / n - (s / n) ** 2) * n / (n - 1))
    for name, v in p.items():
        compare("evaluated", v, t["evaluated/" + name])
print(f"IGC-L{L}M{M}, {blocks} blocks, {step} steps:", ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))
bounds = {"first logits": 1e-5, "first loss": 1e-6, "first gradients": 1e-2, "logits": 1e-2, "loss": 1e-3,
          "gradients": 1e-1, "evaluated": 5e-2, "final parameters": 5e-2, "final statistics": 1e-2}
sys.exit(any(worst[k] > bounds[k] for k in worst))
