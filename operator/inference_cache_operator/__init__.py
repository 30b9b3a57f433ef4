"""The operator: a webhook that injects the sidecar into pods, and a controller that keeps resources, pods and versions in order.

Pure decisions (`resource`, `selecting`, `injection`, `versions`, `audit`) stand apart from what talks to the cluster.
"""
