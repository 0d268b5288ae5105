"""What is due and when; who reads it; what becomes of what was read."""
