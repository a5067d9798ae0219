"""A real control plane on loopback: etcd, kube-apiserver and kube-controller-manager, built from their Go modules."""
