"""The architectures of the small nets."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ConvBnRelu(nn.Sequential):
    """A convolution, batch normalisation and ReLU."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, groups: int = 1, kernel: int = 3):
        super().__init__(
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(cout),
            self.activation(),
        )

    @staticmethod
    def activation() -> nn.Module:
        return nn.ReLU()


class ConvBnRelu6(ConvBnRelu):
    """The same with ReLU6."""

    @staticmethod
    def activation() -> nn.Module:
        return nn.ReLU6()


class Residual(nn.Module):
    """A basic residual block; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.conv1 = ConvBnRelu(cin, cout, stride=stride)
        self.conv2 = nn.Sequential(
            nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class SmallNet(nn.Module):
    """Residual and depthwise blocks, a max pool, a concat: what Q/DQ placement must handle."""

    def __init__(self, width: int):
        super().__init__()
        self.stem = ConvBnRelu(1, width)
        self.res1 = Residual(width, width, 1)
        self.pool = nn.MaxPool2d(2)
        self.res2 = Residual(width, 2 * width, 1)
        self.left = ConvBnRelu(2 * width, width, kernel=1)
        self.right = nn.Sequential(
            ConvBnRelu(2 * width, 2 * width, groups=2 * width),
            ConvBnRelu(2 * width, width, kernel=1),
        )
        self.res3 = Residual(2 * width, 2 * width, 2)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.res2(self.pool(self.res1(self.stem(x))))
        x = self.res3(torch.cat([self.left(x), self.right(x)], 1))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widened, depthwise, narrowed without activation."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, expansion: int = 4):
        super().__init__()
        width = cin * expansion
        self.body = nn.Sequential(
            ConvBnRelu6(cin, width, kernel=1),
            ConvBnRelu6(width, width, stride=stride, groups=width),
            nn.Conv2d(width, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNet(nn.Module):
    """A small MobileNetV2 for pictures of 28x28: depthwise convolutions and ReLU6."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            ConvBnRelu6(1, 16, stride=2),
            InvertedResidual(16, 24),
            InvertedResidual(24, 24),
            InvertedResidual(24, 40, stride=2),
            InvertedResidual(40, 40),
            InvertedResidual(40, 64),
            ConvBnRelu6(64, 160, kernel=1),
        )
        self.head = nn.Linear(160, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
