//! Typed access to the tables of a TOML document that reports every problem with its place.
