"""raftkv: a Raft-style consensus replication framework."""
