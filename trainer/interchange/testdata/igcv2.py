"""IGCV2-M1K3K4 of depth 5: 2247 parameters, without those of batch norm.

    igcsearch model IGCV2-M1K3K4 --layout stages --depth 5 --classes 3 --size 8 --pytorch

has printed this module. The keys of its state_dict are the names in the files of `igcsearch weights`. Net reads
pictures as (B, 3, 8, 8), normalised as (x / 255 - mean) / std by the mean and std of such a file, and gives
(B, 3) scores.
"""
from torch import nn
from torch.nn.functional import relu


def norm(channels):
    return nn.BatchNorm2d(channels, eps=2e-05, momentum=0.01)


def regroup(x, n, step):
    """Puts those n channels side by side that lie step apart and make a partition. regroup(x, step, n) undoes it."""
    b, c, h, w = x.shape
    return x.view(b, c // (n * step), n, step, h, w).transpose(2, 3).reshape(b, c, h, w)


class Conv(nn.Conv2d):
    """A convolution with zero padding of half a kernel. The channels of a partition lie step_in apart in what it reads,
    and step_out apart in what it gives."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1, step_in=1, step_out=1):
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        super().__init__(c_in, c_out, (kh, kw), stride, (kh // 2, kw // 2), groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight)
        self.step_in, self.step_out = step_in, step_out

    def forward(self, x):
        x = regroup(x, self.in_channels // self.groups, self.step_in)
        x = super().forward(x)
        return regroup(x, self.step_out, self.out_channels // self.groups)


class Product(nn.Module):
    """A primary convolution and 1×1 convolutions behind it. A mix (k, step) has partitions of k channels that lie step
    apart."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1, mixes=()):
        super().__init__()
        self.primary = Conv(c_in, c_out, kernel, stride, groups)
        self.mixes = []  # names
        for i, (k, step) in enumerate(mixes, 1):
            self.mixes.append("secondary" if len(mixes) == 1 else f"secondary{i}")
            self.add_module(self.mixes[-1], Conv(c_out, c_out, 1, groups=c_out // k, step_in=step, step_out=step))

    def forward(self, x):
        x = self.primary(x)
        for name in self.mixes:
            x = getattr(self, name)(x)
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Conv(3, 12, 3)
        self.bn0 = norm(12)
        self.block1 = Product(12, 12, 3, groups=12, mixes=[(3, 1), (4, 3)])
        self.block1.bn = norm(12)
        self.block2 = Product(12, 24, 3, stride=2, groups=12, mixes=[(3, 2), (4, 6)])
        self.block2.bn = norm(24)
        self.block3 = Product(24, 48, 3, stride=2, groups=12, mixes=[(3, 4), (4, 12)])
        self.block3.bn = norm(48)
        self.fc = nn.Linear(48, 3)

    def forward(self, x):
        x = relu(self.bn0(self.conv0(x)))  # (B, 12, 8, 8)
        x = relu(self.block1.bn(self.block1(x)))
        x = relu(self.block2.bn(self.block2(x)))  # (B, 24, 4, 4)
        x = relu(self.block3.bn(self.block3(x)))  # (B, 48, 2, 2)
        x = x.mean((2, 3))
        return self.fc(x)
