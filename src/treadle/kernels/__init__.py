"""Compiled CPU kernels, each beside its torch reference."""
