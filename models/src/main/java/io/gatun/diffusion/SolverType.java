package io.gatun.diffusion;

/// `solver_type` of the multistep solvers. Each knows its own; another's stands for its default, so that a
/// configuration can be used for another sampler.
enum SolverType { MIDPOINT, HEUN, LOGRHO, BH1, BH2 }
