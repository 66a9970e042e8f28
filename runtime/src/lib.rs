//! Thalweg on one host: the device trait, the executor and the session. Names no op and no network: it sees plans.

pub mod broken;
pub mod checkpoint;
pub mod crash;
pub mod cursor;
pub mod device;
pub mod executor;
pub mod feed;
pub mod memory;
pub mod outputs;
pub mod planner;
pub mod reference;
pub mod session;
pub mod source;
pub mod trace;

pub use checkpoint::{CheckpointError, Resumed, Same, Saved, Saving};
pub use cursor::{Cursor, Cursors};
pub use device::{AbortFlag, Device, DeviceError, Timing};
pub use executor::Executor;
pub use feed::{Feed, FeedError, Feeds};
pub use outputs::Outputs;
pub use planner::{Placing, Planner, Single};
pub use reference::ReferenceDevice;
pub use session::{At, NotFinite, ProfileRow, RunError, Session};
pub use trace::Trace;
