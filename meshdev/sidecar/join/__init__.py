"""How a sidecar enters the pods of a workload and leaves them, with the developer's own rights; runs on the laptop.

An ephemeral container joins the running pod (``ephemeral``), or a native sidecar enters its template (``patch``); which
of the two is found out by asking the API server without changing anything (``choice``). What the sidecar does in the
pod is :mod:`meshdev.sidecar.agent`'s part.
"""
