"""The simulated worlds in which raftkv itself is tested, each with its seed: their clients, calls and checks."""
