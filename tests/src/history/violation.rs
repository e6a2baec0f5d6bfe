//! What can be wrong with a history.

use std::fmt;

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An acknowledged message is not in an archive it belongs to.
    MissingRow,
    /// An acknowledged message never came to its recipient.
    NeverSeen,
    /// A message was neither acknowledged nor refused to the end, and its sender did not give it up.
    NoAnswer,
    /// A message was refused after it was acknowledged: in between its sender believed that it is safe.
    RefusedLate,
    /// A message has more than one row in an archive.
    SecondRow,
    /// A message came to its recipient although an archive it belongs to does not have it.
    SeenNotStored,
    /// A message came again, or is archived, under another id than the first time.
    OtherId,
    /// Two messages have one id.
    SharedId,
    /// A message came without the id that the account should have given to it.
    NoId,
    /// A message came again without a `<delay/>`.
    NoDelay,
    /// A message came twice in one session.
    Doubled,
    /// A message came again long after it was acknowledged by the client.
    CameBack,
    /// Messages were first seen in another order than they were sent in.
    SeenOutOfOrder,
    /// A session got messages in another order than the account's archive has.
    OutOfPosition,
    /// Messages are archived in another order than they were sent in.
    StoredOutOfOrder,
    /// Something came, or is archived, that nobody has sent.
    Phantom,
    /// A message came to, or is in the archive of, an account that has nothing to do with it.
    Misdelivered,
    /// A message has another sender, address or text than it was sent with.
    Altered,
    /// An archive's times run back.
    TimeRunsBack,
    /// Reading an archive backwards gives other rows than reading it forwards.
    PagesDiffer,
    /// Asking an archive for what there is with an account gives other rows than it has with it.
    PeerDiffers,
    /// A session could not be resumed although its server has run on.
    ResumptionRefused,
    /// The protocol was broken in a way that shows at once.
    Fault,
    /// The run itself is not what the rules are made for: a fault of the test.
    BadRun,
}

/// A broken rule, with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub kind: Kind,
    /// The client or account where it shows.
    pub place: String,
    /// The `origin-id` of the message, where there is one.
    pub origin: Option<String>,
    /// What exactly is wrong.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.kind, self.place)?;
        if let Some(origin) = &self.origin {
            write!(f, ", message {origin}")?;
        }
        write!(f, ": {}", self.detail)
    }
}
