//! The one integration binary: each further one would link Pingora again.

mod architecture;
