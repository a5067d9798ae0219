"""What tests of faults share: the faults, the load beside them, and what must hold."""
