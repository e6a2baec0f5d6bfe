//! The faults that can be planted in the model, each with what it must be called.

use super::super::Kind;

/// A fault to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// `h` covers what is received, before it is written.
    AcknowledgeBeforeCommit,
    /// Only the sender's archive is written before `h` moves.
    AcknowledgeHalf,
    /// A message is delivered before it is written.
    DeliverBeforeCommit,
    /// What waits for a recipient is forgotten in a crash.
    LoseCursor,
    /// What was delivered but not acknowledged is taken for done when a session resumes.
    ForgetOnResume,
    /// The cursor is never written.
    KeepNoCursor,
    /// Two messages change places on their way to the archive.
    ReorderCommit,
    /// Two messages change places on their way to the recipient.
    ReorderDelivery,
    /// A message that is sent again is not recognised.
    SecondRow,
    /// A message that comes again has another id.
    NewId,
    /// A message that comes again has no delay.
    NoDelay,
    /// A message comes without an id.
    NoId,
    /// An id is given twice.
    ReuseId,
    /// What was delivered is delivered again to the session that resumes.
    DoubleOnResume,
    /// A message goes to another account.
    Misdeliver,
    /// A copy goes to another account.
    MiscopyAbroad,
    /// A device gets a copy of what it sent itself.
    MiscopyBack,
    /// A row goes into another account's archive.
    Misfile,
    /// A message from nobody is delivered.
    DeliverPhantom,
    /// A message from nobody is archived.
    StorePhantom,
    /// The text of a delivered message changes.
    AlterDelivered,
    /// The sender of an archived message changes.
    AlterStored,
    /// A row is archived with an old time.
    OldStamp,
    /// Reading backwards leaves out a row.
    SkipRow,
    /// Reading what there is with an account leaves out a row.
    LosePeer,
    /// A living server does not know a session.
    RefuseResumption,
    /// Some messages are never acknowledged.
    NeverAnswer,
}

impl Bug {
    /// All of them. A history with one of them shows at least one of these violations, and each shows now and then.
    pub(super) const ALL: &[(Self, &[Kind])] = &[
        (Self::AcknowledgeBeforeCommit, &[Kind::MissingRow, Kind::NeverSeen]),
        (Self::AcknowledgeHalf, &[Kind::MissingRow, Kind::NeverSeen]),
        (Self::DeliverBeforeCommit, &[Kind::SeenNotStored, Kind::OtherId]),
        (Self::LoseCursor, &[Kind::NeverSeen]),
        (Self::ForgetOnResume, &[Kind::NeverSeen]),
        (Self::KeepNoCursor, &[Kind::CameBack]),
        (Self::ReorderCommit, &[Kind::StoredOutOfOrder, Kind::SeenOutOfOrder]),
        (Self::ReorderDelivery, &[Kind::OutOfPosition, Kind::SeenOutOfOrder]),
        (Self::SecondRow, &[Kind::SecondRow]),
        (Self::NewId, &[Kind::OtherId]),
        (Self::NoDelay, &[Kind::NoDelay]),
        (Self::NoId, &[Kind::NoId]),
        (Self::ReuseId, &[Kind::SharedId]),
        (Self::DoubleOnResume, &[Kind::Doubled]),
        (Self::Misdeliver, &[Kind::Misdelivered]),
        (Self::MiscopyAbroad, &[Kind::Misdelivered]),
        (Self::MiscopyBack, &[Kind::Misdelivered]),
        (Self::Misfile, &[Kind::Misdelivered]),
        (Self::DeliverPhantom, &[Kind::Phantom]),
        (Self::StorePhantom, &[Kind::Phantom]),
        (Self::AlterDelivered, &[Kind::Altered]),
        (Self::AlterStored, &[Kind::Altered]),
        (Self::OldStamp, &[Kind::TimeRunsBack]),
        (Self::SkipRow, &[Kind::PagesDiffer]),
        (Self::LosePeer, &[Kind::PeerDiffers]),
        (Self::RefuseResumption, &[Kind::ResumptionRefused]),
        (Self::NeverAnswer, &[Kind::NoAnswer]),
    ];
}
