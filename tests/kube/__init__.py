"""meshdev.kube against a fake API server that keeps state, watches and RBAC (fake_api.py)."""
