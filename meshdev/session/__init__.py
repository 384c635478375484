"""The session: the unprivileged process of one connection on the laptop.

It talks to Kubernetes with the user's own credentials, runs tunnel and DNS, and asks the helper for what needs root.
It opens no device and changes no route itself, and it never renders anything.
"""
