"""From a configuration to a model, and from a model to files.

- `build`: the action, path, coupling, dynamics and loss that a configuration describes
- `trained`: TrainedAction: an action with its configuration and the origin of its weights
- `checkpoints`: the complete state of a training run, in a folder
- `export`, `weights_file`: one set of weights, in a file
- `classes`: numbers and names of classes
"""
