"""What field engineers ask: explaining frames, reading, probing."""
