"""What is shipped: the image's steps, the distributions, the SBOM, the OLM bundle."""
