"""Networks that follow a line: from what is seen at its points to what a direction getter reads."""
