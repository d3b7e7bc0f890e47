"""Load: what is asked for (`spec`), by which means (`raftkv`, `etcd`, `library`), in which rhythm (`rhythm`)."""
