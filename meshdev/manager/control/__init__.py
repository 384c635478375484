"""The manager's container *control* (no capability): what sessions declare and report. No pyroute2, no TUN."""
