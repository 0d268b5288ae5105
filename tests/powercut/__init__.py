"""Power cuts and n-th failures: a file system that forgets what was not synced."""
