"""A simulated world: nodes, disks, a network and clocks in one thread. The seed decides all that is left to chance."""
