//! Requests: what is sent twice, and what a challenge says (T52 to T55).
