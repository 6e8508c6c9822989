"""Values that hypothesis draws for the properties of the protocol."""

from hypothesis import strategies as st

LETTERS = "abcdefghijklmnopqrstuvwxyz"

labels = st.from_regex(r"[a-z0-9]([a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
"""Labels of letters and digits, which no rule about hyphens can touch."""

top_labels = st.from_regex(r"[a-z]{2,20}", fullmatch=True).filter(
    lambda label: not label.startswith("xn")
)

names = st.builds(
    lambda inner, top: ".".join([*inner, top]),
    st.lists(labels, min_size=1, max_size=6),
    top_labels,
)
"""Canonical DNS names without a wildcard."""

wild_names = st.builds(lambda star, name: f"*.{name}" if star else name, st.booleans(), names)
"""Canonical DNS names, some of them wildcards."""
