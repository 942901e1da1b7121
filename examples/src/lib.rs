//! The examples stand beside this folder; see the README of `tower-token`.
