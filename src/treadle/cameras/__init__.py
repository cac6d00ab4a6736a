"""Cameras and what they have seen: conventions, readers of COLMAP, Blender and nerfstudio files, rays and paths."""
