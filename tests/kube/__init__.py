"""The Kubernetes plumbing, against a scripted API server."""
