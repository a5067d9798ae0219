"""Stand-ins for controllers and admission of the platform, working through the API."""
