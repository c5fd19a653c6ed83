"""amgen: image generators trained by Action Matching."""

__version__ = "0.1.0"
