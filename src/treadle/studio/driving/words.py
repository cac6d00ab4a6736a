"""What a branch's process and its parent tell one another."""

FORKED, READY = "forked", "ready"
"""What the process says: that the run is there, with its directory; that the studio is, before the first step."""
GO_ON = "go on"
"""The line on standard input by which it is to outlive its parent."""
