//! Thalweg on one host: the device trait, the executor and the session. Names no op and no network: it sees plans.

pub mod cursor;
pub mod device;
pub mod feed;
pub mod memory;
pub mod outputs;
pub mod reference;
pub mod session;

pub use cursor::{Cursor, Cursors};
pub use device::{AbortFlag, Device, DeviceError, Timing};
pub use feed::FeedError;
pub use outputs::Outputs;
pub use reference::ReferenceDevice;
pub use session::{ProfileRow, RunError, Session};
