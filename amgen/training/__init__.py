"""Training of an action in a run directory.

- `main`: train: the entry point, which `amgen train` calls
- `loop`: Trainer: the training loop
- `batches`: the items of a training step: noise, data, times and all other random numbers
- `ema`: averaged weights
- `state`: what a checkpoint saves, and resuming from it
- `rundir`: the run directory: created, resumed or refused
- `periodic`: log lines, checkpoints, sample grids and evaluations during training
- `measurements`, `logging`, `trackers`: metrics, and where they are written
- `signals`, `ranks`: stopping, and failures of other processes
"""
