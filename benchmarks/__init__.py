"""The benchmarks: `python -m benchmarks` lists the suites, `python -m benchmarks SUITE…` runs them."""
