"""Evaluation of models: features, metrics, likelihood and reports.

- `arguments`: reading and checking options before torch is loaded
- `features`: feature extractors: Inception-v3 and others
- `reference`: real images as features, with a cache
- `evaluator`: Evaluator: generate images and compute their scores
- `computations`: from features to scores; frechet, metrics, neighbours and restoration hold the formulas
- `likelihood`: bits per dimension
- `distances`: distances between sets of points: MMD, Wasserstein
- `report`, `sweep`: the results, of one evaluation and of several
"""
