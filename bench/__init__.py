"""What ``make bench`` measures: meshdev against ``kubectl port-forward``, and requests through a sidecar against the
bare app, each in one run, interleaved, as ratios; and how long intercepts take, as clients in the cluster see it.

Runs on the testbed's laptop 1. Absolute figures belong to the machine; the ratios are the result.
"""
