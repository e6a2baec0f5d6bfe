//! Over real sockets of this machine, with real certificates.

mod hostile;
mod links;
mod rafts;
mod rotation;
mod stage;
mod trouble;
mod whole;
