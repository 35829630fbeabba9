"""What `ftbench selfcheck` runs on a card: small training loops, and meters around them."""
