"""Configuration: dataclasses, YAML files and command-line values as one thing, checked strictly."""
