"""What must hold in a world: invariants after each event, histories of clients, models, and time to recover in."""
