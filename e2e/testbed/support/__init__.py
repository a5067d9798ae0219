"""What the whole test bed uses: processes, ports, certificates, builds, waiting."""
