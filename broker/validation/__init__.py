"""Going and looking whether a client controls what it asks for.

What was seen comes back as an observation; the verdict is ``protocol.challenges``'.  Everything
here speaks to machines that strangers chose, so what is contacted, how much is read and how long
is waited has a limit at every step (docs/adr/0005-validation-targets.md).
"""
