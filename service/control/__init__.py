"""When: tick, leases, monitor, retrain state machine, promotion, recovery; and who runs the processes."""
