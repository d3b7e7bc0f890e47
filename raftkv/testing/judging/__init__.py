"""Judges worlds: invariants that hold after each event, and models that explain the histories of clients."""
