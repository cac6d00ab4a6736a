"""Ready-made hooks, one per file."""
