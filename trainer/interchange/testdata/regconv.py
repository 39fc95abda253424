"""RegConv-W6 of depth 5: 3801 parameters, without those of batch norm.

    igcsearch model RegConv-W6 --layout stages --depth 5 --classes 3 --size 8 --pytorch

has printed this module. The keys of its state_dict are the names in the files of `igcsearch weights`. Net reads
pictures as (B, 3, 8, 8), normalised as (x / 255 - mean) / std by the mean and std of such a file, and gives
(B, 3) scores.
"""
from torch import nn
from torch.nn.functional import relu


def norm(channels):
    return nn.BatchNorm2d(channels, eps=2e-05, momentum=0.01)


class Conv(nn.Conv2d):
    """A convolution with zero padding of half a kernel."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1):
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        super().__init__(c_in, c_out, (kh, kw), stride, (kh // 2, kw // 2), groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Conv(3, 6, 3)
        self.bn0 = norm(6)
        self.block1 = Conv(6, 6, 3)
        self.block1.bn = norm(6)
        self.block2 = Conv(6, 12, 3, stride=2)
        self.block2.bn = norm(12)
        self.block3 = Conv(12, 24, 3, stride=2)
        self.block3.bn = norm(24)
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        x = relu(self.bn0(self.conv0(x)))  # (B, 6, 8, 8)
        x = relu(self.block1.bn(self.block1(x)))
        x = relu(self.block2.bn(self.block2(x)))  # (B, 12, 4, 4)
        x = relu(self.block3.bn(self.block3(x)))  # (B, 24, 2, 2)
        x = x.mean((2, 3))
        return self.fc(x)
