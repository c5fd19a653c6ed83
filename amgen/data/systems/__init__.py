"""Systems with known dynamics, for simulated populations."""
