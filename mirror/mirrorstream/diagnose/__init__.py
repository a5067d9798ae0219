"""What operators are told about streams, tags and pods. Pure."""
