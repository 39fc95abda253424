#!/usr/bin/env python3
"""Records what TestTenStepsAgreeWithPyTorch compares with: ten training steps
of a small IGC network in PyTorch, in float64, from weights and pictures that
both sides make by the same formula.

    python3 torch_losses.py > torch_losses.json      (any PyTorch from 1.13 on)
"""
import json
import torch
import torch.nn as nn
import torch.nn.functional as F

L, M, BLOCKS, SIDE, BATCH, CLASSES = 3, 2, 2, 6, 5, 4
G = L * M
HORIZON, MEASURED = 4, range(200, 203)


def formula(tag, n):
    """n numbers in [-1, 1): the high bits of a multiplicative hash."""
    return [((i * 2654435761 + tag * 40503 + 12345) % 2**32 >> 8) / 2**23 - 1 for i in range(n)]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.primary = nn.Conv2d(G, G, 3, padding=1, groups=L, bias=False)
        self.secondary = nn.Conv2d(G, G, 1, groups=M, bias=False)
        self.bn = nn.BatchNorm2d(G, eps=2e-5, momentum=0.01)

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.primary(x).view(n, L, M, h, w).transpose(1, 2).reshape(n, c, h, w)
        z = self.secondary(y).view(n, M, L, h, w).transpose(1, 2).reshape(n, c, h, w)
        return F.relu(self.bn(z))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, G, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(G, eps=2e-5, momentum=0.01)
        for b in range(BLOCKS):
            setattr(self, f"block{b+1}", Block())
        self.fc = nn.Linear(G, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn0(self.conv0(x)))
        for b in range(BLOCKS):
            x = getattr(self, f"block{b+1}")(x)
        return self.fc(x.mean((2, 3)))


net = Net().double()
with torch.no_grad():
    for tag, (name, p) in enumerate(net.named_parameters()):
        v = torch.tensor(formula(tag, p.numel()), dtype=torch.float64).view(p.shape)
        p.copy_(1 + v / 4 if name.endswith("bn.weight") or name == "bn0.weight" else v / 2)
opt = torch.optim.SGD(net.parameters(), weight_decay=0.01, lr=0.05, momentum=0.9, nesterov=True)
losses = []
# The average of the weights, with a horizon of HORIZON steps and its bias corrected.
beta = 1 - 1 / HORIZON
average = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
for step in range(10):
    x = torch.tensor(formula(100 + step, BATCH * 3 * SIDE * SIDE), dtype=torch.float64).view(BATCH, 3, SIDE, SIDE)
    y = torch.tensor([(step + i * i) % CLASSES for i in range(BATCH)])
    opt.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    if step == 0:
        grads = {n: p.grad.flatten().tolist() for n, p in net.named_parameters()}
    opt.step()
    losses.append(loss.item())
    with torch.no_grad():
        for n, p in net.named_parameters():
            average[n] = beta * average[n] + (1 - beta) * p
net.eval()
with torch.no_grad():
    evaluation = F.cross_entropy(net(x), y).item()
final = {n: v.flatten().tolist() for n, v in net.state_dict().items() if "num_batches" not in n}
# What an evaluation of the averages by precise statistics uses: mean and variance
# over the batches MEASURED, each normalised by its own statistics on the way.
with torch.no_grad():
    for n, p in net.named_parameters():
        p.copy_(average[n] / (1 - beta ** 10))
sums = {}


def add(name):
    def hook(module, inputs):
        z = inputs[0].transpose(0, 1).flatten(1)
        s = sums.setdefault(name, [0, 0, 0])
        s[0], s[1], s[2] = s[0] + z.sum(1), s[1] + (z * z).sum(1), s[2] + z.shape[1]
    return hook


norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
hooks = [m.register_forward_pre_hook(add(n)) for n, m in norms.items()]
net.train()
with torch.no_grad():
    for tag in MEASURED:
        net(torch.tensor(formula(tag, BATCH * 3 * SIDE * SIDE), dtype=torch.float64).view(BATCH, 3, SIDE, SIDE))
    for h in hooks:
        h.remove()
    for n, m in norms.items():
        s, q, count = sums[n]
        m.running_mean.copy_(s / count)
        m.running_var.copy_((q / count - (s / count) ** 2) * count / (count - 1))
    net.eval()
    precise = F.cross_entropy(net(x), y).item()
evaluated = {n: v.flatten().tolist() for n, v in net.state_dict().items() if "num_batches" not in n}
# float32 holds seven digits
short = lambda d: {k: [float(f"{x:.9g}") for x in v] for k, v in d.items()}
print(json.dumps({"torch": torch.__version__, "order": [n for n, _ in net.named_parameters()], "losses": losses,
                  "evaluation": evaluation, "first_gradients": short(grads), "final": short(final),
                  "precise_evaluation": precise, "evaluated": short(evaluated)}))
