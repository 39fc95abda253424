"""IGCV3-W8R2G2 of depth 8: 5675 parameters, without those of batch norm.

    igcsearch model IGCV3-W8R2G2 --layout stages --depth 8 --classes 3 --size 8 --pytorch

has printed this module. The keys of its state_dict are the names in the files of `igcsearch weights`. Net reads
pictures as (B, 3, 8, 8), normalised as (x / 255 - mean) / std by the mean and std of such a file, and gives
(B, 3) scores.
"""
from torch import nn
from torch.nn.functional import relu


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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Conv(3, 8, 3)
        self.bn0 = norm(8)
        self.block1 = nn.Module()
        self.block1.conv1 = Conv(8, 16, 1, groups=2, step_out=2)
        self.block1.conv1.bn = norm(16)
        self.block1.conv2 = Conv(16, 16, 3, groups=16)
        self.block1.conv2.bn = norm(16)
        self.block1.conv3 = Conv(16, 8, 1, groups=2, step_out=2)
        self.block1.conv3.bn = norm(8)
        self.block2 = nn.Module()
        self.block2.conv1 = Conv(8, 16, 1, groups=2, step_out=2)
        self.block2.conv1.bn = norm(16)
        self.block2.conv2 = Conv(16, 16, 3, groups=16)
        self.block2.conv2.bn = norm(16)
        self.block2.conv3 = Conv(16, 8, 1, groups=2, step_out=2)
        self.block2.conv3.bn = norm(8)
        self.block3 = nn.Module()
        self.block3.conv1 = Conv(8, 16, 1, groups=2, step_out=2)
        self.block3.conv1.bn = norm(16)
        self.block3.conv2 = Conv(16, 16, 3, stride=2, groups=16)
        self.block3.conv2.bn = norm(16)
        self.block3.conv3 = Conv(16, 16, 1, groups=2, step_out=2)
        self.block3.conv3.bn = norm(16)
        self.block4 = nn.Module()
        self.block4.conv1 = Conv(16, 32, 1, groups=2, step_out=2)
        self.block4.conv1.bn = norm(32)
        self.block4.conv2 = Conv(32, 32, 3, groups=32)
        self.block4.conv2.bn = norm(32)
        self.block4.conv3 = Conv(32, 16, 1, groups=2, step_out=2)
        self.block4.conv3.bn = norm(16)
        self.block5 = nn.Module()
        self.block5.conv1 = Conv(16, 32, 1, groups=2, step_out=2)
        self.block5.conv1.bn = norm(32)
        self.block5.conv2 = Conv(32, 32, 3, stride=2, groups=32)
        self.block5.conv2.bn = norm(32)
        self.block5.conv3 = Conv(32, 32, 1, groups=2, step_out=2)
        self.block5.conv3.bn = norm(32)
        self.block6 = nn.Module()
        self.block6.conv1 = Conv(32, 64, 1, groups=2, step_out=2)
        self.block6.conv1.bn = norm(64)
        self.block6.conv2 = Conv(64, 64, 3, groups=64)
        self.block6.conv2.bn = norm(64)
        self.block6.conv3 = Conv(64, 32, 1, groups=2, step_out=2)
        self.block6.conv3.bn = norm(32)
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        conv0 = relu(self.bn0(self.conv0(x)))  # (B, 8, 8, 8)
        x = self.block1.conv1.bn(self.block1.conv1(conv0))  # (B, 16, 8, 8)
        x = relu(self.block1.conv2.bn(self.block1.conv2(x)))
        x = self.block1.conv3.bn(self.block1.conv3(x))  # (B, 8, 8, 8)
        unit1 = x + conv0
        x = self.block2.conv1.bn(self.block2.conv1(unit1))  # (B, 16, 8, 8)
        x = relu(self.block2.conv2.bn(self.block2.conv2(x)))
        x = self.block2.conv3.bn(self.block2.conv3(x))  # (B, 8, 8, 8)
        x = x + unit1
        x = self.block3.conv1.bn(self.block3.conv1(x))  # (B, 16, 8, 8)
        x = relu(self.block3.conv2.bn(self.block3.conv2(x)))  # (B, 16, 4, 4)
        block3_conv3 = self.block3.conv3.bn(self.block3.conv3(x))
        x = self.block4.conv1.bn(self.block4.conv1(block3_conv3))  # (B, 32, 4, 4)
        x = relu(self.block4.conv2.bn(self.block4.conv2(x)))
        x = self.block4.conv3.bn(self.block4.conv3(x))  # (B, 16, 4, 4)
        x = x + block3_conv3
        x = self.block5.conv1.bn(self.block5.conv1(x))  # (B, 32, 4, 4)
        x = relu(self.block5.conv2.bn(self.block5.conv2(x)))  # (B, 32, 2, 2)
        block5_conv3 = self.block5.conv3.bn(self.block5.conv3(x))
        x = self.block6.conv1.bn(self.block6.conv1(block5_conv3))  # (B, 64, 2, 2)
        x = relu(self.block6.conv2.bn(self.block6.conv2(x)))
        x = self.block6.conv3.bn(self.block6.conv3(x))  # (B, 32, 2, 2)
        x = x + block5_conv3
        x = x.mean((2, 3))
        return self.fc(x)
