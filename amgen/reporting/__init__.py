"""A training run on one HTML page."""
