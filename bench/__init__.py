"""What ``make bench`` measures: meshdev against ``kubectl port-forward``, in one run, interleaved, as ratios.

Runs on the testbed's laptop 1. Absolute figures belong to the machine; the ratios are the result.
"""
