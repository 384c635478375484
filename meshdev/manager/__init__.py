"""The in-cluster traffic-manager. It knows only what live sessions tell it and holds no Kubernetes permission."""
