"""meshdev: run one service of a Kubernetes application on your machine; everything else stays in the cluster.

Folders are cut by where code runs and with what power; ``wire``, ``host`` and ``intercept`` are pure.
"""
