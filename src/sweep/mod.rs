//! Sweeps: every call of a program fails with every error that it documents, one after the other.

mod case;
#[allow(dead_code)] // Until there is the engine that runs the cases.
mod confine;
mod contents;
mod copy;
mod directory;
mod errors;
mod escape;
mod html;
mod legend;
mod matrix;
mod remove;
mod report;
#[allow(dead_code)] // Until there is the engine that runs the cases.
mod scratch;
#[allow(dead_code)] // Until there is the engine that runs the cases.
mod snapshot;
mod text;
mod trial;
mod walk;

pub use case::Case;
pub use errors::documented_errors;
pub use report::{Baseline, LeftOut, Report};
pub use trial::{Change, Ending, FileChange, Trial, Verdict};
