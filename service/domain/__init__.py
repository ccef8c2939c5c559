"""What the loop is about: frozen values and pure decisions. No I/O, no clock, no framework."""
