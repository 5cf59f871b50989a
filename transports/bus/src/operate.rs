//! What only an administrator may do with rooms and devices.

use latchbus_core::clicks::Counter;

use crate::PublishRefused;

/// An operation of an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operate {
    /// The room begins anew, with these counts. What its devices have reported so far counts for nothing any more;
    /// what they report more counts from here on, also where it was clicked before.
    ResetRoom {
        /// Its name.
        room: String,
        /// What it shows from then on, before the next click.
        counts: Counter,
    },
    /// The device is gone with its clicks and its topics. When it reports a click more it is there again, with that
    /// one.
    RemoveDevice {
        /// Its room.
        room: String,
        /// Its name.
        device: String,
    },
    /// What an operation has taken counts again, and what has come since counts too. Within a minute, unless a later
    /// operation has taken its place.
    Undo {
        /// Which.
        id: u64,
    },
}

impl Operate {
    /// One word for it, as the audit log has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ResetRoom { .. } => "reset-room",
            Self::RemoveDevice { .. } => "remove-device",
            Self::Undo { .. } => "undo",
        }
    }

    /// What it is about, as the audit log has it: the room, the room and the device, or the operation that it undoes.
    pub fn target(&self) -> String {
        match self {
            Self::ResetRoom { room, .. } => room.clone(),
            Self::RemoveDevice { room, device } => format!("{room}/{device}"),
            Self::Undo { id } => id.to_string(),
        }
    }
}

/// An operation was made, and is on disk if anything is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operated {
    /// By which it can be undone. Later operations have larger ones.
    pub id: u64,
    /// In which room.
    pub room: String,
    /// The device, if it was about one.
    pub device: Option<String>,
    /// The clicks of the device, or else of the room, before.
    pub from: Counter,
    /// And after.
    pub to: Counter,
    /// Until when it can be undone, in Unix milliseconds; none for the undoing itself.
    pub undo_until: Option<u64>,
}

/// Why an operation was not made. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// Only an administrator may.
    #[error("only an administrator may do that")]
    NotAllowed,
    /// There is no such room.
    #[error("there is no such room")]
    UnknownRoom,
    /// There is no such device in the room.
    #[error("there is no such device in the room")]
    UnknownDevice,
    /// Nothing to be undone.
    #[error(
        "there is nothing to undo: the id is unknown, or it was undone, or a later operation has replaced it"
    )]
    UnknownOperation,
    /// An operation can be undone for a minute.
    #[error("an operation can be undone within a minute, and that is over")]
    TooLate,
    /// A bound of the hub, or it is closing.
    #[error(transparent)]
    Refused(#[from] PublishRefused),
}
