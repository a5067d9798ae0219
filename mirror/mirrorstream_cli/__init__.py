"""The command line, above both programs."""
