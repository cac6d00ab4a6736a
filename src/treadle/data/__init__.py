"""Feeds: batches in an order that is a function of (seed, epoch), with an exactly known position."""
