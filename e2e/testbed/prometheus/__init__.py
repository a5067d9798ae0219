"""A real Prometheus that scrapes the programs with the alerts and the dashboard that users install."""
