"""Presets: one YAML file each, found by name."""
