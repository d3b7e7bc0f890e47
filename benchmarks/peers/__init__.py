"""Who is measured: clusters of real processes on loopback, ours and those that people would pick instead."""
