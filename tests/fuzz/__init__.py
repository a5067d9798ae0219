"""Whatever others may write, read by all that reads it: nothing raises what it must not, nothing takes more than linear time."""
