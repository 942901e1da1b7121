//! What does not compile, in `cases/`.
