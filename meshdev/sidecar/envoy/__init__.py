"""PURE: Envoy's configuration as plain values in Envoy's own JSON form, from what live sessions claim.

``bootstrap`` is what an Envoy starts with, ``resources`` what the manager serves over ADS, ``sds`` what the agent does;
``tls`` is how Envoy connects to the manager. ``protos`` alone knows the library protobuf. No I/O and no clock: the same
claims give the same bytes.
"""
