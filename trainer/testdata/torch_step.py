#!/usr/bin/env python3
"""Times the training step that `igcsearch bench` times, in PyTorch.

    igcsearch bench --pairs fig3a,fig3b --peer trainer/testdata/torch_step.py
    igcsearch bench --device cuda:0 --peer "python3 trainer/testdata/torch_step.py --device cuda"

Prints a JSON line as soon as it has measured one of PyTorch's two layouts in one --precision:
L, M, precision, layout, variant, step_s in seconds, the median of --steps steps after one that
is not counted. bf16 is torch.autocast to bfloat16 around the forward pass, with a loss in
float32. On a GPU (float32, TensorFloat-32 allowed) each time is of eight steps, which are not
waited for one by one, as in our own measurement, and the median of 12 or more times, or of the
three or more that --seconds have room for. It measures in the order of --ways: eager, the step
as a recorded CUDA graph, and compiled by torch.compile. A way that fails prints "error" in place
of step_s, and the others go on.
"""
import argparse, contextlib, itertools, json, statistics, time
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


def seconds(L, M, precision, layout, way, a):
    net = network(L, M).to(a.device, memory_format=layout)
    x = torch.randn(a.batch, 3, 32, 32, device=a.device).contiguous(memory_format=layout)
    y = torch.arange(a.batch, device=a.device) % CLASSES
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    model = torch.compile(net, mode="max-autotune") if way == "compile" else net

    def step():
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            logits = model(x)
        F.cross_entropy(logits.float(), y).backward()
        opt.step()

    run, times, uncounted, burst = step, a.steps, 1, 1
    wait = lambda: None
    if a.device != "cpu":
        wait, times, uncounted, burst = torch.cuda.synchronize, max(a.steps, 12), 2, 8
    if way == "graph":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        opt.zero_grad(set_to_none=True)  # so that each replay writes gradients, and adds them to none
        with torch.cuda.graph(graph):
            step()
        run = graph.replay
    took = []
    for _ in range(uncounted + times):
        if a.device != "cpu" and len(took) >= uncounted + 3 and sum(took) * burst > a.seconds:
            break
        wait()
        begin = time.perf_counter()
        for _ in range(burst):
            run()
        wait()
        took.append((time.perf_counter() - begin) / burst)
    return statistics.median(took[uncounted:])


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--pairs", default="40x2", help="LxM,LxM,…")
p.add_argument("--batch", type=int, default=64)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--steps", type=int, default=3)
p.add_argument("--device", default="cpu")
p.add_argument("--precision", default="f32,bf16", help="on a processor")
p.add_argument("--seconds", type=float, default=3, help="of steps in one way, on a GPU")
p.add_argument("--ways", default="eager,graph,compile", help="on a GPU")
a = p.parse_args()
torch.set_num_threads(a.threads)
ways, precisions = ["eager"], a.precision.split(",")
if not set(precisions) <= {"f32", "bf16"}:
    p.error("--precision: want f32, bf16")
if a.device != "cpu":
    ways, precisions = a.ways.split(","), ["f32"]
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
for pair in a.pairs.split(","):
    L, M = map(int, pair.split("x"))
    for way, precision, layout in itertools.product(ways, precisions, (torch.contiguous_format, torch.channels_last)):
        line = {"L": L, "M": M, "precision": precision, "layout": str(layout), "variant": way, "device": a.device,
                "torch": torch.__version__}
        try:
            line["step_s"] = seconds(L, M, precision, layout, way, a)
        except Exception as e:  # a compiler that is missing, say; the others count
            if way == "eager" and precision == "f32":
                raise
            line["error"] = f"{type(e).__name__}: {e}".split("\n")[0]
        print(json.dumps(line), flush=True)
