#!/usr/bin/env python3
"""Records what TestNetworksAgreeWithPyTorch compares with: three training steps
of each network in networks.json (which the test writes with -update), in
float64, from weights and pictures that both sides make by the same formula.

    python3 torch_networks.py networks.json > torch_networks.json      (any PyTorch from 1.13 on)

A network here is an interpreter of the list of layers, in PyTorch's own operations.
"""
import json
import sys
import torch
import torch.nn.functional as F

EPS = 2e-5


def formula(tag, n):
    """n numbers in [-1, 1): the high bits of a multiplicative hash."""
    return [((i * 2654435761 + tag * 40503 + 12345) % 2**32 >> 8) / 2**23 - 1 for i in range(n)]


def tensor(tag, *shape):
    return torch.tensor(formula(tag, torch.Size(shape).numel()), dtype=torch.float64).view(shape)


def partitioned(x, k, step):
    """The channels of each partition one after the other, for partitions of k channels that lie step apart."""
    n, c, h, w = x.shape
    return x.view(n, c // (k * step), k, step, h, w).transpose(2, 3).reshape(n, c, h, w)


def group_conv(x, weight, groups, step_in, step_out, **options):
    """A group convolution whose partitions have channels that lie step_in and step_out apart."""
    x = partitioned(x, x.shape[1] // groups, step_in)
    z = F.conv2d(x, weight, groups=groups, **options)
    return partitioned(z, step_out, z.shape[1] // groups)  # the inverse: the two digits change places


def norm_name(layer):
    return "bn" + layer[4:] if layer.startswith("conv") else layer.removesuffix(".secondary") + ".bn"


class Net:
    def __init__(self, net):
        self.layers, self.p, self.stats = net["layers"], {}, {}
        self.factor = 0.1 if any(l["kind"] == "add" for l in self.layers) else 0.01
        for l in self.layers:
            out, groups = l["out"]["c"], l.get("groups", 1)
            if l["kind"] in ("conv", "igc"):
                name = l["name"] + (".primary" if l["kind"] == "igc" else "") + ".weight"
                self.param(name, l["branches"] * out, l["in"]["c"] // groups, l["kh"], l["kw"])
                for i, (k, _) in enumerate(l["mixes"] or []):
                    number = i + 1 if len(l["mixes"]) > 1 else ""
                    self.param(f"{l['name']}.secondary{number}.weight", out, k, 1, 1)
                if l["norm"]:
                    bn = norm_name(l["name"])
                    self.param(bn + ".weight", out)
                    self.param(bn + ".bias", out)
                    self.stats[bn] = (torch.zeros(out, dtype=torch.float64), torch.ones(out, dtype=torch.float64))
            elif l["kind"] == "linear":
                self.param(l["name"] + ".weight", out, l["in"]["c"])
                self.param(l["name"] + ".bias", out)

    def param(self, name, *shape):
        v = tensor(len(self.p), *shape)
        scale = len(shape) == 1 and name.endswith("weight")
        self.p[name] = (1 + v / 4 if scale else v / 2).requires_grad_()

    def layer(self, l, x, shortcut, train):
        kind, name, p = l["kind"], l["name"], self.p
        if kind == "add":
            return F.relu(x + shortcut) if l["relu"] else x + shortcut
        if kind == "max-pool":
            return F.max_pool2d(x, 3, 2, 1)
        if kind == "pool":
            return x.mean((2, 3))
        if kind == "linear":
            return F.linear(x, p[name + ".weight"], p[name + ".bias"])
        groups, pad = l["groups"], (l["kh"] // 2, l["kw"] // 2)
        if kind == "igc":
            y = F.conv2d(x, p[name + ".primary.weight"], stride=l["stride"], padding=pad, groups=groups)
            if l["between"]:
                y = F.relu(y)
            z = y
            for i, (k, step) in enumerate(l["mixes"]):
                number = i + 1 if len(l["mixes"]) > 1 else ""
                z = group_conv(z, p[f"{name}.secondary{number}.weight"], z.shape[1] // k, step, step)
        else:
            z = sum(group_conv(x, w, groups, l["step_in"], l["step_out"], stride=l["stride"], padding=pad)
                    for w in p[name + ".weight"].chunk(l["branches"]))
        if l["norm"]:
            bn = norm_name(name)
            mean, var = self.stats[bn]
            z = F.batch_norm(z, mean, var, p[bn + ".weight"], p[bn + ".bias"], train, self.factor, EPS)
        return F.relu(z) if l["relu"] else z

    def __call__(self, x, train):
        out = {-1: x}
        for i, l in enumerate(self.layers):
            out[i] = self.layer(l, out[l["from"]], out[l["shortcut"]] if l["kind"] == "add" else None, train)
        return out[len(self.layers) - 1]


def record(net):
    n, batch, classes = Net(net), net["batch"], net["classes"]
    opt = torch.optim.SGD(n.p.values(), weight_decay=0.01, lr=0.05, momentum=0.9, nesterov=True)
    losses, grads = [], {}
    s = net["layers"][0]["in"]
    for step in range(3):
        x = tensor(100 + step, batch, s["c"], s["h"], s["w"])
        y = torch.tensor([(step + i * i) % classes for i in range(batch)])
        opt.zero_grad()
        loss = F.cross_entropy(n(x, True), y)
        loss.backward()
        if step == 0:
            # of each gradient: its length, and its product with a vector
            for k, p in n.p.items():
                g = p.grad.flatten()
                grads[k] = [g.norm().item(), (g * tensor(999, g.numel())).sum().item()]
        opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        evaluation = F.cross_entropy(n(x, False), y).item()
    return {"losses": losses, "evaluation": evaluation, "gradients": grads}


torch.set_num_threads(1)
nets = json.load(open(sys.argv[1]))
json.dump({"torch": torch.__version__, "networks": {k: record(v) for k, v in nets.items()}}, sys.stdout, indent=1)
