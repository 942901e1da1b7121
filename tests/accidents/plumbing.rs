//! Plumbing: where a token and a token request may go (T56).
