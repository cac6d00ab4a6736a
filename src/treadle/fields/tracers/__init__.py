"""Tracers: how a field is seen along rays."""
