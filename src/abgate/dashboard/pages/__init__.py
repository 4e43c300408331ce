"""What each page reads and does, one file a page."""
