"""Features, metrics and reports."""
