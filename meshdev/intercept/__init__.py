"""PURE: what an intercept is. Which workload, ports and requests it claims, how it is written down, who may be.

No I/O, no clock, no Kubernetes client: a Lease is a dict here, time is an argument. Sessions, the manager's control
container and the builders of Envoy's resources share these values.
"""
