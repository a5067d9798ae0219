"""What users are promised, each a scenario on a whole cluster with the controller as its own process."""
