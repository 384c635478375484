"""What control and session share to be scraped by Prometheus: a small HTTP server, and metric families as text.

Which metrics there are is declared where their values are: ``manager/control/metrics.py`` and ``session/metrics.py``.
Nothing here knows what it serves. Only who serves metrics imports ``exposition``: prometheus-client takes 80 ms to
load.
"""
