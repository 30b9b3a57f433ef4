"""When pods roll and what is flushed, decided from the status and what lives, without asking or changing anything."""
