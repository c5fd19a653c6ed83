"""Feature extractors: networks that map images to vectors, in which distances between sets of images are measured.

Each extractor takes uint8 images and states its name, dimension, image preparation and the checksum of its weights: a distance means
nothing without them. Only a distance on Inception-v3 features may be called FID.
"""

from amgen.evaluation.features.base import FeatureExtractor
from amgen.evaluation.features.registry import EXTRACTORS, make_extractor

__all__ = ["EXTRACTORS", "FeatureExtractor", "make_extractor"]
