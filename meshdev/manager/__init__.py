"""The in-cluster traffic-manager. It knows only what live sessions report and holds no Kubernetes permission."""
