"""Tractography: models that learn, from streamlines, where a line goes on."""
