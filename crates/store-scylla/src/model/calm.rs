//! The form that does everything at once.

use super::network::Live;
use super::table::{Key, Part};
use super::{Connection, register::Registers};
use crate::cql::{Answer, Mutation, Partition};
use futures::FutureExt;
use futures::future::ready;

impl Connection {
    pub(super) fn write_now(&self, mutation: Mutation) -> Answer<()> {
        let mut state = self.model.0.state.lock();
        let spoken = self.model.spoken(mutation);
        for replica in &mut state.replicas {
            replica.apply(&spoken);
        }
        ready(Ok(())).boxed()
    }

    pub(super) fn read_now<T: Send + 'static>(
        &self,
        partition: &Partition,
        bounds: (Key, Key),
        then: impl FnOnce(Live<'_>) -> T,
    ) -> Answer<T> {
        let state = self.model.0.state.lock();
        let table = state.replicas.first().and_then(|replica| replica.tables.get(partition));
        let answer = match table {
            Some(table) => then(Live::Table(table, bounds, self.model.second())),
            None => then(Live::Part(&Part::default(), 0)),
        };
        ready(Ok(answer)).boxed()
    }

    pub(super) fn decide_now<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Registers, bool) -> T,
    ) -> Answer<T> {
        ready(Ok(decide(&mut self.model.0.state.lock().registers, true))).boxed()
    }
}
