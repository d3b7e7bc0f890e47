"""What happened in a world: recorded, told in words and drawn."""
