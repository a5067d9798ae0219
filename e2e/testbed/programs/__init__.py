"""mirrorstream under test: its programs, its installation, and those who use it."""
