"""PURE: what the passthrough proxy makes of bytes. Where HTTP/1 messages begin and end, and whose claim a request is.

``sniff`` looks at the first bytes of a connection, ``http1`` follows the messages of one that speaks HTTP/1, ``decide``
finds the claim that takes a request, as Envoy would. Bytes in, events out: nothing here changes bytes or keeps more of
them than one head, and no input raises. Sockets, clocks and buffers of what is yet to be sent belong to the caller; so
do Kubernetes and Envoy's configuration to other folders.
"""
