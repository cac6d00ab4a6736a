"""Feeds of streamlines: which lines form a batch, and what is done to them before a model sees them."""
