//! What the lake promises: rows come back as they went in, positions move with them, and nobody's rows are lost or
//! doubled. One binary, because it links Arrow.

mod commit;
mod files;
mod lake;
mod support;
