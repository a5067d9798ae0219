"""Parts of a cluster that tests start beside the API server, or that back ends imitate."""
