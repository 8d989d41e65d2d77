//! How a summary looks.
