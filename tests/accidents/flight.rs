//! Concurrency: herds, late refusals, and who wakes when (T01 to T10).
