"""What is asked of a run: its transport, edits and branches."""
