"""Ways to talk: each module turns one platform's events into `core` messages and replies into posts."""
