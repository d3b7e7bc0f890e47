"""A simulated world: nodes, disks, a network and clocks in one thread, where nothing is by chance but the seed."""
