"""What answers now: slot, batcher, predict, record, replica."""
