//! Cancellation: callers that leave, runtimes that end, providers that panic (T12 to T20).
