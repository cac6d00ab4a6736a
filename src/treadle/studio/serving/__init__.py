"""Who may come in, over what connection, and who has the control."""
