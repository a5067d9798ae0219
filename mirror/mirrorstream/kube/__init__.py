"""Watching and writing Kubernetes objects: the client, the informer and events, shared by controller and webhook."""
