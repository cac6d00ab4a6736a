"""Recipes: YAML files that name a trainer, its data and its config, and the registry that finds them."""
