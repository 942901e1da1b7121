//! Clocks: suspend, skew and steps (T49 to T51).
