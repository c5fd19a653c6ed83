"""The `amgen` command."""
