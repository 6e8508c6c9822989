"""Where private keys are held, and what is known of public ones.

A key that lives here never leaves: this room signs, tells the public half, and judges the public
keys of others.  It does not know what is signed or why.
"""
