"""A small application that is upgraded on real nodes, under load, with leaders killed in each stage."""
