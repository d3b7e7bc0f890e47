"""The version of raftkv that runs."""

__version__ = "0.2.0"
"""Written here, and read from here when raftkv is packaged: to ask what is installed takes a tenth of a second."""
