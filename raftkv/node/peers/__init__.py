"""Other nodes, as one node sees them: who they are, whether they may talk to it, and where they are.

Who is who
----------
One node has five names. Each belongs to the one above it, and is replaced more often:

    name                what it names        where it comes from                 where it is kept
    cluster id          the cluster          its name and a hash of its founders file `cluster`, and all owned files
    └ node id           a member             the operator; given out only once   the membership, in the log
      └ incarnation     a data directory     drawn when the directory is made    all owned files (`log.owned`)
        └ boot          a start of it        counts 1, 2, 3, …                   file `vote`
          └ nonce       a process            drawn when the process starts       file `starts`, with its boot

What each of them shows that the one above it can't:

- Another **incarnation** under one node id: this directory has forgotten what the former one acknowledged.
- A lower **boot** than was seen before, or one with another nonce: this directory is an older copy.
- Another **nonce** for the boot that runs: two processes run on two copies of one directory.

What nodes tell each other:

- A **hello** is what a node says first on a connection: all five names, and what it has met itself. `admission` reads
  it, and lets the peer in or refuses it.
- A node has **met** a peer when it has let it in. It keeps an **acquaintance**, which is the peer's incarnation, boot
  and nonce (`met`, in the file `peers`), and it tells the other nodes about it (`gossip`).
- A **doubt** is on an acquaintance that nodes have met in ways that contradict each other. No node counts the votes
  and acknowledgements of a peer in doubt, or lets it in.

Other words:

- A **member** is a node in the membership. A **stranger** is in no membership that is known here: it may be a leader
  that was added while this node was down.
- A **removed** node was a member. Its id never comes back, and a node finds out about its own removal in `removal`.
- A node that joins **belongs** to no cluster until its first handshake (`belonging`).
- A **place** is a node's two addresses, for other nodes and for clients. They come from the membership, from an
  operator (`moved`), or from the node itself (`places`).
"""
