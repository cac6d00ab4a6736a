"""A run on disk: its directory, config, environment, journal, metrics, and the comparison of runs."""
