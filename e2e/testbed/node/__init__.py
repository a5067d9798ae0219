"""A real node on the control plane: kube-scheduler, kubelet and CRI-O, with containers that really run."""
