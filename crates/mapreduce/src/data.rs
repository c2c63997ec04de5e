//! What happens to records: input in lines, sorting and aggregating in the maps, the shuffle's
//! format, merging in the reduces, output in lines, and the jobs that come with shoal.
//!
//! Everything here is computation. Input comes in as slices, runs as [`std::io::Read`], spills go
//! to a [`Storage`], output to a [`std::io::Write`].
//!
//! ```text
//!           MapCode                                                     Reduction
//! lines ───────────▶ Sorter or Aggregator ──▶ MapOutput ──▶ Merge ───────────────▶ LineWriter
//!                     (spills, combiner)     (data, index)  (spills)
//! ```

pub mod aggregate;
pub mod builtin;
pub mod counters;
pub mod error;
pub mod fold;
pub mod map;
pub mod merge;
pub mod native;
pub mod order;
pub mod partition;
pub mod reduce;
mod room;
pub mod scratch;
pub mod shuffle;
pub mod sorted_lines;
pub mod sorter;
pub mod split;
pub mod text;

pub use counters::{Counters, TaskCounters};
pub use error::DataError;
pub use map::{Combine, MapOutput, MapPlan, MapTask};
pub use native::{Mapper, Reducer, Values};
pub use reduce::{ReducePlan, Reduction, reduce, reduce_sorted};
pub use scratch::{MemoryStorage, Scratch, Section, Storage};
pub use sorted_lines::{LinesError, SortedLines};
pub use text::LineWriter;
