"""The wire of the Auth0 Management API experimentation group."""
