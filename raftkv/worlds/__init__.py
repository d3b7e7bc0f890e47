"""The worlds in which raftkv itself is tried, each by its seed: their clients, what these ask for and may see."""
