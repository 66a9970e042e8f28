//! Thalweg's CPU device: kernels on threads.
