"""Gaussian splats: scenes of soft ellipsoids that multiply and die while they are trained."""
