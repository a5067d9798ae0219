"""Tests of the test bed's own control plane and node."""
