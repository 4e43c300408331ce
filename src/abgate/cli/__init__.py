"""The command line: abgate …."""
