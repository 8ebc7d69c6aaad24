"""How fast and how exact the engine is, against what a user would pick instead. Not shipped; see README.md here."""
