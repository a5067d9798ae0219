"""The recordings of the real API, replayed on a server."""
