"""Dataclasses, YAML and command line as one; the registry of recipes."""
