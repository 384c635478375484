"""Spans and logs of what is recorded, sent by OTLP: access records become OpenTelemetry's objects and go to a receiver.

Only who sends them imports anything here but ``endpoint`` and ``causes``: OpenTelemetry takes 10 to 25 MB, and on the
laptop it is an extra that need not be installed. Where records come from is no business of this folder.
"""
