"""Grids of features: hashed, dense, sparse, in planes, with a codebook."""
