"""What is measured before and after a solve: the fastest solver, stability, causality."""
