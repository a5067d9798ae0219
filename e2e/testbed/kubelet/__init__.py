"""A small kubelet for back ends without a node."""
