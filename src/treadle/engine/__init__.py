"""The loop and what it is made of: progress, events, schedules, minimize, objectives, row edits."""
