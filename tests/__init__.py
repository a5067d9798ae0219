"""Fast tests: pure tables, fakes, and the plumbing against scripted servers."""
