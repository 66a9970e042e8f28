//! Thalweg on one host: the device trait, the executor and the session.
