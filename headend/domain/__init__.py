"""What the product is about: readings, due points, meters, exchanges, time rules. No I/O."""
