"""Publishes each consumer's stream of the journal and moves its cursor on receipts only."""
