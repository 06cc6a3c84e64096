//! A robot as a physics engine needs it.

/// A robot, compiled from MJCF.
#[derive(Debug)]
pub struct Model {}
