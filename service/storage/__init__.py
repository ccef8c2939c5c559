"""Where things are kept: SQL for state, Delta tables for rows, files by digest for artifacts, the spool before both."""
