"""Other nodes, as one node sees them: who they are, whether they may talk to it, where they are.

Who is who, in the words that the code uses:

- **node id**: the number of a member. It is given once; one that was removed never comes back.
- **cluster id**: the name of a cluster and a hash of its founders; `belonging` knows this node's own.
- **incarnation**: a data directory's own number, drawn when it is made. Another directory under the same node id has
  forgotten what this one acknowledged.
- **boot**: how often a directory was started. **starts**: its boots, each with the nonce of its process.
- **nonce**: a process's own number. Two processes with one boot run on copies of one directory.
- **acquaintance**: incarnation, boot and nonce of a node as somebody met it, with a *doubt* if those who met it
  contradict each other; `met` keeps one for each node, and `gossip` tells others.
- **stranger**: a node that is in no membership that is known here.
- **place**: a node's two addresses, for other nodes and for clients: by the membership, by the operator's word beside
  it (`moved`), or as the node says itself (`places`).
"""
