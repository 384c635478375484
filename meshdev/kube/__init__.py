"""The Kubernetes API with the developer's own credentials: kubeconfig, requests, port-forwards, the manager's objects.

``access``, ``manifest`` and ``rbac`` are pure. Only ``rest`` imports the ``kubernetes`` package, and only once a
:class:`~meshdev.kube.client.KubeApi` is opened: the CLI and the packet path never pay for it.
"""
