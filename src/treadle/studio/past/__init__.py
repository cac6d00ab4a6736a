"""Kept states, and other runs, looked at beside the run; and what happened when."""
