"""Many simulated worlds, one seed after the other: what they met, and which rows of the table of faults that covers."""
