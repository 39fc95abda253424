#!/usr/bin/env python3
"""Runs modules that WritePyTorch has written, as TestPyTorch starts it:

    python3 run_modules.py NAME…

NAME.py is a module, NAME.npz and NAME.safetensors its tensors, NAME.json pictures for it. Both files must hold the same
tensors and texts, and load strictly. Prints the scores in float64 as JSON, and on stderr how far those in float32 are
from them. Readers of both formats as docs/elsewhere.md has them.
"""
import hashlib
import json
import sys

import numpy as np
import torch


def read_safetensors(path):
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    about = header.pop("__metadata__")
    at = lambda t: slice(8 + n + t["data_offsets"][0], 8 + n + t["data_offsets"][1])
    return {k: torch.from_numpy(np.frombuffer(data[at(t)], "<f4").reshape(t["shape"]).copy()) for k, t in header.items()}, about


def read_npz(path):
    arrays = dict(np.load(path, allow_pickle=False))
    about = json.loads(arrays.pop("about").tobytes())
    return {k: torch.from_numpy(v) for k, v in arrays.items()}, about


torch.set_num_threads(1)
results, worst, spread = {}, 0, 0
for name in sys.argv[1:]:
    given = json.load(open(name + ".json"))
    text = open(name + ".py").read()
    scope = {}
    exec(compile(text, name + ".py", "exec"), scope)
    tensors, about = read_safetensors(name + ".safetensors")
    same, also = read_npz(name + ".npz")
    assert about == also == given["about"], (about, also)
    assert tensors.keys() == same.keys() and all(torch.equal(tensors[k], same[k]) for k in same), name
    net = scope["Net"]()
    # It begins with weights as ours do: of variance 2/fan_in.
    for k, v in net.state_dict().items():
        if v.dim() == 4 and v.numel() > 200:
            ratio = v.var().item() * v[0].numel() / 2
            assert 0.5 < ratio < 2, (name, k, ratio)
    net.load_state_dict(tensors, strict=True)
    assert all(m.eps == float(about["batch_norm_eps"]) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    x = torch.tensor(given["pictures"]).view(given["shape"])
    net.eval()
    with torch.no_grad():
        single, double = net(x).double(), net.double()(x.double())
    worst = max(worst, ((single - double).abs().max() / double.square().mean().sqrt()).item())
    spread = max(spread, double.abs().max().item())
    results[given["name"]] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "scores": double.flatten().tolist()}
print(f"{len(results)} modules, float32 against float64: {worst:.1e} of the root mean square", file=sys.stderr)
assert worst < 1e-5
json.dump(results, sys.stdout)
