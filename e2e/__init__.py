"""What it takes to try mirrorstream on one machine: the simulator, the contract with the real API, the demo."""
