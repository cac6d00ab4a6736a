"""What came out of a test: pictures and figures as a page, JSON and CSV."""
