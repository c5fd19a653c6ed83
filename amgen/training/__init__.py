"""Training: the loop, averages of the weights, the run directory."""
