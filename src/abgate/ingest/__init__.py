"""Identity servers' events: in, stored, enriched."""
