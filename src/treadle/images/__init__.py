"""Pictures, for every pack: reading, showing, panels, video, and how near one is to another."""
