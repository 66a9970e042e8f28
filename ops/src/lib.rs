//! Thalweg's model API: tensors, operations, layers, optimizers and gradients.
