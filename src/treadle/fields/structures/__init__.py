"""Acceleration structures: where in space anything is."""
