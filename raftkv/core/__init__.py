"""The consensus core: Raft as a pure function of its inputs."""
