"""Inception-v3 features, by torch-fidelity."""

from pathlib import Path

import torch
from torch import Tensor

from amgen.evaluation.features.base import FeatureExtractor, as_rgb
from amgen.evaluation.features.weights import MissingWeights, check_sha256, load_network


class InceptionFeatures(FeatureExtractor):
    """The pooled layer of Inception-v3, by torch-fidelity: the network that FID is defined with (arXiv 1706.08500).

    The weights (91 MB) are not part of any package. They are read from torch's cache folder or from `weights`.
    """

    name, distance_name = "inception", "FID"
    preparation = "gray repeated to 3 channels, bilinear to 299x299 as in TensorFlow 1"
    dimension = 2048
    FILE = "weights-inception-2015-12-05-6726825d.pth"
    SHA256_START = "6726825d"  # torch.hub writes the first digits of the checksum into the file's name

    def __init__(self, weights: Path | None, device: torch.device):
        path = weights or self.cached()
        if not path.is_file():
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

            raise MissingWeights(
                f"features=inception need {path}, which does not exist: download {URL_INCEPTION_V3} (91 MB) on a machine with "
                "network access, copy it to that place or give its path with --weights"
            )
        self.checksum = check_sha256(path, self.SHA256_START)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = device
        self.network = load_network(path, lambda: FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))).to(device)

    @classmethod
    def cached(cls) -> Path:
        """Return the path of the weights in torch's cache, where torch-fidelity stores them."""
        return Path(torch.hub.get_dir()) / "checkpoints" / cls.FILE

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features, (B, 2048)."""
        with torch.no_grad():
            (features,) = self.network(as_rgb(images.to(self.device)))
        return features.cpu()

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the 1,008 ImageNet classes without their bias, as the Inception Score uses them."""
        return (features.to(self.device) @ self.network.fc.weight.T).cpu()
