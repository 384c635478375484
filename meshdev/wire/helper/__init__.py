"""What the session asks of the root helper, and what it answers: one JSON object a line over a stream socket.

A closed list of requests; whoever reads a line checks every value in it. Descriptors travel beside an answer
(SCM_RIGHTS): ``fds`` of its envelope says how many belong to it, because the kernel may glue lines together.

::

    helper  → {"helper": 1, "pid": 7, "uid": 1000, "dns": "redirect", …}      the greeting, before any request
    session → {"id": 1, "op": "open_tun", "queues": 2}
    helper  → {"id": 1, "ok": {"device": "meshdev0", "offload": 103}, "fds": 2}
    helper  → {"id": 2, "error": {"code": "route", "message": "…", "hint": null}, "fds": 0}

``requests`` is the closed list, ``answers`` what comes back, ``lines`` what stands around both, ``limits`` the numbers.
"""
