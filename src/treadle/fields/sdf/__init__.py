"""Signed distance fields: meshes read and judged, samples around them, the field, and the mesh back."""
