"""Parts of the agent without a pod; the whole of it is in tests/netns."""
