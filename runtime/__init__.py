"""Execute a verified program and count, time and price what it does."""
