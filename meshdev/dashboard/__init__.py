"""The page of ``meshdev dashboard``: its files (static/), what serves them and an event stream, and who may read it.

It runs in the session, but knows neither session nor cluster: what it shows is given to it as a feed.
"""
