"""IGC-L4M2+1x3 of depth 5: 2075 parameters, without those of batch norm.

    igcsearch model IGC-L4M2+1x3 --layout stages --depth 5 --classes 3 --size 9 --pytorch

has printed this module. The keys of its state_dict are the names in the files of `igcsearch weights`. Net reads
pictures as (B, 3, 9, 9), normalised as (x / 255 - mean) / std by the mean and std of such a file, and gives
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


class IGC(nn.Module):
    """An interleaved group convolution. The primary convolution has `groups` partitions. Each partition of the secondary
    one takes one channel from every primary partition."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1):
        super().__init__()
        m = c_out // groups  # channels of a primary partition
        self.primary = Conv(c_in, c_out, kernel, stride, groups)
        self.secondary = Conv(c_out, c_out, 1, groups=m, step_in=m, step_out=m)

    def forward(self, x):
        x = self.primary(x)
        return self.secondary(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Conv(3, 8, 3)
        self.bn0 = norm(8)
        self.block1 = IGC(8, 8, (3, 1), groups=4)
        self.block1.primary0 = Conv(8, 8, (1, 3), groups=4)
        self.block1.bn = norm(8)
        self.block2 = IGC(16, 16, (3, 1), stride=2, groups=4)
        self.block2.primary0 = Conv(8, 16, (1, 3), groups=4)
        self.block2.bn = norm(16)
        self.block3 = IGC(32, 32, (3, 1), stride=2, groups=4)
        self.block3.primary0 = Conv(16, 32, (1, 3), groups=4)
        self.block3.bn = norm(32)
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        x = relu(self.bn0(self.conv0(x)))  # (B, 8, 9, 9)
        x = self.block1.primary0(x)
        x = relu(self.block1.bn(self.block1(x)))
        x = self.block2.primary0(x)  # (B, 16, 9, 9)
        x = relu(self.block2.bn(self.block2(x)))  # (B, 16, 5, 5)
        x = self.block3.primary0(x)  # (B, 32, 5, 5)
        x = relu(self.block3.bn(self.block3(x)))  # (B, 32, 3, 3)
        x = x.mean((2, 3))
        return self.fc(x)
