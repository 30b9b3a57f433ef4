"""The admin port: health, metrics and status for everyone who can reach it, flush and feedback for holders of the token."""
