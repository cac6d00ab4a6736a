"""The table of runs: listed, filtered, opened up."""
