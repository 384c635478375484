"""What an intercept is to the cluster: asked for, planned, held and given back, whichever mode it is of.

Here are the steps and their undo. Not here: the tunnel, the laptop and the commands; the session hands those in as a
:class:`meshdev.modes.link.Link`.
"""
