"""Many runs of one recipe: a search through its settings, shared by any number of processes."""
