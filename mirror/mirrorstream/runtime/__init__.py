"""What both programs need to run: configuration, logs, metrics, health and certificates."""
