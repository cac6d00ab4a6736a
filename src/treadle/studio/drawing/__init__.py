"""Pictures: what is asked for, drawn within its share of the time, packed and sent."""
