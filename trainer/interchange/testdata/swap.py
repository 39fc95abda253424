"""IGC-L4M2+Swap of depth 5: 2507 parameters, without those of batch norm.

    igcsearch model IGC-L4M2+Swap --layout stages --depth 5 --classes 3 --size 8 --pytorch

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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Conv(3, 8, 3)
        self.bn0 = norm(8)
        self.block1 = nn.Module()
        self.block1.primary = Conv(8, 8, 1, groups=4)
        self.block1.secondary = Conv(8, 8, 3, groups=2, step_in=2, step_out=2)
        self.block1.bn = norm(8)
        self.block2 = nn.Module()
        self.block2.primary = Conv(8, 16, 1, groups=4)
        self.block2.secondary = Conv(16, 16, 3, stride=2, groups=4, step_in=4, step_out=4)
        self.block2.bn = norm(16)
        self.block3 = nn.Module()
        self.block3.primary = Conv(16, 32, 1, groups=4)
        self.block3.secondary = Conv(32, 32, 3, stride=2, groups=8, step_in=8, step_out=8)
        self.block3.bn = norm(32)
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        x = relu(self.bn0(self.conv0(x)))  # (B, 8, 8, 8)
        x = self.block1.primary(x)
        x = relu(self.block1.bn(self.block1.secondary(x)))
        x = self.block2.primary(x)  # (B, 16, 8, 8)
        x = relu(self.block2.bn(self.block2.secondary(x)))  # (B, 16, 4, 4)
        x = self.block3.primary(x)  # (B, 32, 4, 4)
        x = relu(self.block3.bn(self.block3.secondary(x)))  # (B, 32, 2, 2)
        x = x.mean((2, 3))
        return self.fc(x)
