"""Tracking: lines that grow from seeds, point by point, as something says where they go on."""
