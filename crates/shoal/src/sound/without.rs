//! No sound cards: built without them.

use shoal_node::call::card::{Intake, Outlet};

use super::{Clock, Device, InUse};
use crate::failure::{Failure, Outcome};

/// Whether this program was built with sound cards.
pub(crate) const fn is_built_in() -> bool {
    false
}

fn none<T>() -> Outcome<T> {
    Err(
        Failure::failed("this shoal was built without microphone and loudspeaker").hint(
            "cargo install --path crates/shoal --features sound (Debian: apt-get install \
             libasound2-dev pkg-config); or talk in a browser: shoal phone; or by files: --wav-in, --wav-out",
        ),
    )
}

/// The devices of this machine.
pub(super) fn list() -> Outcome<Vec<Device>> {
    none()
}

/// Opens a microphone.
pub(crate) fn microphone(_: &str, _: Clock) -> Outcome<InUse<Intake>> {
    none()
}

/// Opens a loudspeaker.
pub(crate) fn loudspeaker(_: &str, _: Clock) -> Outcome<InUse<Outlet>> {
    none()
}
