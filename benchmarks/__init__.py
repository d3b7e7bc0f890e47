"""Benchmarks of raftkv; each module runs by itself: `python -m benchmarks.core`."""
