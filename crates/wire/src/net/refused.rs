//! Who is refused is counted: a certificate that has ended, an old version, and bytes that cannot be are to be seen.

use super::End;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};

/// `starling_links_refused_total{reason}` of one process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Refused(Family<[(&'static str, &'static str); 1], Counter>);

impl Refused {
    /// Makes it part of what is scraped.
    pub fn register(&self, to: &mut Registry) {
        to.register(
            "starling_links_refused",
            "Links and questions of other processes that were refused, or ended for what they sent",
            self.0.clone(),
        );
    }

    /// How many were refused for this reason.
    pub fn of(&self, reason: &'static str) -> u64 {
        self.0.get_or_create(&[("reason", reason)]).get()
    }

    pub(super) fn count(&self, reason: &'static str) {
        self.0.get_or_create(&[("reason", reason)]).inc();
    }

    /// A request was refused.
    pub(super) fn status(&self, status: &Status) {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => self.count("certificate"),
            Code::FailedPrecondition | Code::DataLoss => self.count("mismatch"),
            Code::InvalidArgument | Code::OutOfRange | Code::Internal => self.count("malformed"),
            Code::DeadlineExceeded => self.count("no_hello"),
            _ => {}
        }
    }

    /// A link is over.
    pub(super) fn ended(&self, end: &End) {
        match end {
            End::Malformed(_) => self.count("malformed"),
            End::Overflow => self.count("overflow"),
            End::Refused(_) => self.count("mismatch"),
            End::Closed | End::Superseded | End::Lost(_) => {}
        }
    }
}
