"""A cluster of real cores with simulated storage and network, driven by commands that one can read aloud."""
