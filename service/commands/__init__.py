"""The command line's verbs, one file per subject. `service.__main__` puts them together."""
