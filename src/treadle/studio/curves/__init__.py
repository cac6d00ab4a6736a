"""Curves that do not lie: kept, thinned, smoothed, put side by side."""
