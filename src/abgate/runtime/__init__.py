"""The hot path: assignments answered from memory."""
