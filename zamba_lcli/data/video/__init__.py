"""From a file to the frames that a player shows of it."""
