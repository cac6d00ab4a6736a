"""Scoring: what is right about a tractogram, where the truth is known."""
