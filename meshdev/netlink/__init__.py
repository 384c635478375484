"""The small part of netlink that laptop, manager and agent need: messages as pure functions, and a blocking socket.

Not pyroute2: importing it costs the root helper 190 ms and 20 MB (measured with 0.9.7), this costs 5 ms and no memory.
"""
