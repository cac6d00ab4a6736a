"""Where scalars, pictures and text are logged: one sink per file, and the table of their names."""
