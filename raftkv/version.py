"""The version of raftkv that runs."""

__version__ = "0.3.0.dev0"
"""Written here, and read from here when raftkv is packaged: to ask what is installed takes a tenth of a second."""
