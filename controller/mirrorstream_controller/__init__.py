"""The controller: re-imports through the mirrors what the platform could not import."""
