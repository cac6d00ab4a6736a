"""Treadle: a training loop you can step, rewind and trust."""
