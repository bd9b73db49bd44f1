"""The stages as a Kubeflow pipeline: compile it, run it on this machine, submit it to a cluster."""
