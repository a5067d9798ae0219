"""Text of others: made safe for terminals and logs, laid out, and read as YAML."""
