"""An image encoder of transformers: the image tower of a two-tower model, the class token, or the mean of patches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from modalmix.encode.encoder import Encoder, EncoderConfig, choose_device, inference
from modalmix.encode.hub import TWO_TOWERS, Pretrained, tensor_of
from modalmix.encode.picture import read_picture

if TYPE_CHECKING:
    import torch

CLASS_TOKEN = frozenset({"vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit_mae", "vit_msn"})
POOLED = frozenset({"clip_vision_model", "siglip_vision_model"})


class TransformerImage(Encoder[Float32[np.ndarray, "channels height width"]]):
    """Picture -> vector. Two towers (CLIP, SigLIP): their image feature, of length 1. Others are not normalised:
    ViT and DINO: the class token after the last norm (their `pooler` is often untrained); networks with a feature map
    (ResNet, ConvNeXt): its mean; others: the mean of the patches.
    """

    modality = "image"

    def __init__(self, config: EncoderConfig, pretrained: Pretrained) -> None:
        self.config, self.pretrained = config, pretrained
        self.two_towers = pretrained.architecture in TWO_TOWERS

    @property
    def identity(self) -> dict[str, Any]:
        """See `Encoder.identity`."""
        return {
            "weights": self.pretrained.revision,
            "pooling": self._pooling,
            "normalisation": "l2" if self.two_towers else "none",
            "preprocessing": "RGB, as preprocessor_config.json, by Pillow",
        }

    @property
    def _pooling(self) -> str:
        if self.two_towers:
            return "image tower"
        if self.pretrained.architecture in POOLED:
            return "pooler"
        return "class token" if self.pretrained.architecture in CLASS_TOKEN else "mean of patches"

    def load(self) -> None:
        """See `Encoder.load`."""
        import transformers
        from transformers import AutoImageProcessor, AutoModel

        # Pillow also where torchvision is installed: the features of a machine are those of every other
        by_pillow = {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
        self.device = choose_device(self.config.device)
        self.processor = self.pretrained.part(AutoImageProcessor.from_pretrained, **by_pillow)
        self.model = self.pretrained.model(AutoModel).to(self.device)

    def decode(self, content: bytes) -> Float32[np.ndarray, "channels height width"]:
        """The picture as the network wants it."""
        return self._pixels(read_picture(content))

    def blank(self) -> Float32[np.ndarray, "channels height width"]:
        """A black picture."""
        from PIL import Image

        return self._pixels(Image.new("RGB", (64, 64)))

    def vectors(
        self, batch: Sequence[Float32[np.ndarray, "channels height width"]]
    ) -> Float32[np.ndarray, "batch dim"]:
        """See `Encoder.vectors`."""
        import torch
        from torch.nn import functional as F

        pixels = torch.from_numpy(np.stack(batch)).to(self.device)
        with inference(self.device, self.config.precision):
            if self.two_towers:
                vectors = F.normalize(tensor_of(self.model.get_image_features(pixel_values=pixels)).float(), dim=1)
            else:
                vectors = self._pooled(self.model(pixel_values=pixels))
            return vectors.float().cpu().numpy()

    def _pixels(self, picture: Any) -> Float32[np.ndarray, "channels height width"]:
        pixels = self.processor(images=picture, return_tensors="np")["pixel_values"][0]
        return np.asarray(pixels, dtype=np.float32)

    def _pooled(self, output: Any) -> "torch.Tensor":
        if self._pooling == "pooler":
            return output.pooler_output
        hidden = output.last_hidden_state
        if hidden.ndim == 4:
            return hidden.float().mean(dim=(2, 3))
        return hidden[:, 0] if self._pooling == "class token" else hidden.float().mean(dim=1)
