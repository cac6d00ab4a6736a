"""Capture and restore of a run's complete state, its digest, and the store on disk."""
