"""Real nodes for tests: processes that are killed, paused and cut off, and servers in the test's own process."""
