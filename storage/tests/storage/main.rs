//! What the lake promises: rows come back as they went in, positions move with them, and nobody's rows are lost or
//! doubled. One binary, because it links Arrow.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod commit;
mod domains;
mod evolution;
mod files;
mod killed;
mod lake;
mod seal;
mod support;
mod upkeep;
mod verify;
