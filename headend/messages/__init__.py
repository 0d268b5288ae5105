"""The feed's messages, as both ends of it use them."""
