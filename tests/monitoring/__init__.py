"""Metrics, alerts, the dashboard, and what the documents say of them."""
