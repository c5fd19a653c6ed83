"""Image grids, scatter plots, animations and plots."""
