"""Faults on command, and what must hold nevertheless: docs/reliability.md is made of these tests."""
