"""Strategies: which splats multiply and which die, each a small class that edits rows and nothing else."""
