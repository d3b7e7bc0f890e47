"""What is done to a world: by its network, its disks and clocks, and by people."""
