"""What speaks with the services that runs are logged to, each through its own SDK, in a process of its own.

This room is imported by those processes, which have no use for torch: nothing here imports it, or anything that does.
"""
