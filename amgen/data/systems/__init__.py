"""Systems whose motion is known in closed form, for populations that are simulated."""
