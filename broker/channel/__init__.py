"""The channel to agents: who is at the other end, what waits for them, what they tell.

It knows the wire's words and the workflows' values, and turns one into the other; what a message
means is the workflows' to say.
"""
