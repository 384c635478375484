"""PURE: Envoy's configuration as plain values in Envoy's own JSON form, from what live sessions claim.

``bootstrap`` is what an Envoy starts with, ``resources`` what the manager serves over ADS; ``protos`` alone knows
protobuf. No I/O and no clock: the same claims give the same bytes.
"""
