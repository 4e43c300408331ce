"""abgate: a self-hosted Experiment Center for authentication flows."""
