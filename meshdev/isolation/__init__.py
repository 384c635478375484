"""A network beside the machine's own, for ``run`` without root: user, network and mount namespaces (docs/design/0029).

Who makes them (the helper, at its start), how a program enters them, how sockets of that network are had outside it,
and whether all this works here. Standard library and errors only, no asyncio outside ``network.py``: the helper and a
child between fork and exec load it. Nothing here knows of clusters, routes or names.
"""
