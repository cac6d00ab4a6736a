"""The live studio: a run driven and looked at from a browser, or from a program through the same protocol."""
