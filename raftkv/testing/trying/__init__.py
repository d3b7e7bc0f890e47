"""How worlds are tried: scripts of an application's calls, seeds, shrinking, and files to see a failure again."""
