"""The conditions: each a small function that gives the signs of one of them in the evidence, mostly none."""
