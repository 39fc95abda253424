"""IGC-L4M2+Ident. of depth 10: 21435 parameters, without those of batch norm.

    igcsearch model IGC-L4M2+Ident. --layout imagenet --depth 10 --classes 3 --size 40 --pytorch

has printed this module. The keys of its state_dict are the names in the files of `igcsearch weights`. Net reads
pictures as (B, 3, 40, 40), normalised as (x / 255 - mean) / std by the mean and std of such a file, and gives
(B, 3) scores.
"""
from torch import nn
from torch.nn.functional import max_pool2d, relu


def norm(channels):
    return nn.BatchNorm2d(channels, eps=2e-05, momentum=0.1)


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
        self.conv0 = Conv(3, 8, 7, stride=2)
        self.bn0 = norm(8)
        self.block1 = IGC(8, 8, 3, groups=4)
        self.block1.bn = norm(8)
        self.block2 = IGC(8, 8, 3, groups=4)
        self.block2.bn = norm(8)
        self.block3 = IGC(8, 16, 3, stride=2, groups=4)
        self.block3.bn = norm(16)
        self.block4 = IGC(16, 16, 3, groups=4)
        self.block4.bn = norm(16)
        self.unit2 = nn.Module()
        self.unit2.shortcut = Conv(8, 16, 1, stride=2, groups=4)
        self.unit2.shortcut.bn = norm(16)
        self.block5 = IGC(16, 32, 3, stride=2, groups=4)
        self.block5.bn = norm(32)
        self.block6 = IGC(32, 32, 3, groups=4)
        self.block6.bn = norm(32)
        self.unit3 = nn.Module()
        self.unit3.shortcut = Conv(16, 32, 1, stride=2, groups=4)
        self.unit3.shortcut.bn = norm(32)
        self.block7 = IGC(32, 64, 3, stride=2, groups=4)
        self.block7.bn = norm(64)
        self.block8 = IGC(64, 64, 3, groups=4)
        self.block8.bn = norm(64)
        self.unit4 = nn.Module()
        self.unit4.shortcut = Conv(32, 64, 1, stride=2, groups=4)
        self.unit4.shortcut.bn = norm(64)
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        x = relu(self.bn0(self.conv0(x)))  # (B, 8, 20, 20)
        pooled = max_pool2d(x, 3, 2, 1)  # (B, 8, 10, 10)
        x = relu(self.block1.bn(self.block1(pooled)))
        x = self.block2.bn(self.block2(x))
        unit1 = relu(x + pooled)
        x = relu(self.block3.bn(self.block3(unit1)))  # (B, 16, 5, 5)
        block4 = self.block4.bn(self.block4(x))
        x = self.unit2.shortcut.bn(self.unit2.shortcut(unit1))  # (B, 16, 5, 5)
        unit2 = relu(block4 + x)
        x = relu(self.block5.bn(self.block5(unit2)))  # (B, 32, 3, 3)
        block6 = self.block6.bn(self.block6(x))
        x = self.unit3.shortcut.bn(self.unit3.shortcut(unit2))  # (B, 32, 3, 3)
        unit3 = relu(block6 + x)
        x = relu(self.block7.bn(self.block7(unit3)))  # (B, 64, 2, 2)
        block8 = self.block8.bn(self.block8(x))
        x = self.unit4.shortcut.bn(self.unit4.shortcut(unit3))  # (B, 64, 2, 2)
        x = relu(block8 + x)
        x = x.mean((2, 3))
        return self.fc(x)
