"""How the bundled model was made: its data tools, the lines it was read by, and the log. Not part of the wheel."""
