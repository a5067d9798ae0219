"""The webhook: points pods whose images belong to Local tags at the internal registry."""
