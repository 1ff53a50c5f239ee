"""What the workloads share that diffuse: processes, samplers and solvers by name."""
