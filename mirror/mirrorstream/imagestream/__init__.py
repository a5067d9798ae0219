"""What the platform says about ImageStreams, and what may be done about a failed import. Pure."""
