//! Rotation: refresh tokens that are given out once (T22, T23, T28, T29).
