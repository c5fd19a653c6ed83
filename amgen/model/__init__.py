"""From a configuration to a network and its weights, and back: building, checkpoints, export."""
