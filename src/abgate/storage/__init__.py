"""Functions that take a connection; one file a resource; SQLite and PostgreSQL alike."""
