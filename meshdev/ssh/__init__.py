"""The way to an API server through a bastion (``--ssh``): what ssh_config and known_hosts mean (pure), the SSH client,
a process that holds the SSH connection and the keys (paramiko, imported there and nowhere else), and the descriptor
by which commands and the session dial through it. Knows nothing of Kubernetes.
"""
