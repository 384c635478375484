"""``make demo``: a developer's day with meshdev, told with the commands a user would type.

The story stands in :mod:`demo.story`; how it is shown, and how the commands run, in :mod:`demo.stage`.
"""
