//! Values on their way into a statement, borrowed from what is written.

use super::failure::unreadable;
use crate::cql::CqlError;
use scylla::cluster::metadata::ColumnType;
use scylla::serialize::{
    SerializationError,
    value::SerializeValue,
    writers::{CellWriter, WrittenCellProof},
};
use starling_store::Position;

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Blob(&'a [u8]),
    Block([u8; 16]),
    Big(i64),
    Bigs(Vec<i64>),
    Int(i32),
    Tiny(i8),
    Bool(bool),
}

impl SerializeValue for Cell<'_> {
    fn serialize<'b>(
        &self,
        kind: &ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Text(text) => text.serialize(kind, writer),
            Self::Blob(bytes) => bytes.serialize(kind, writer),
            Self::Block(bytes) => bytes.as_slice().serialize(kind, writer),
            Self::Big(number) => number.serialize(kind, writer),
            Self::Bigs(numbers) => numbers.serialize(kind, writer),
            Self::Int(number) => number.serialize(kind, writer),
            Self::Tiny(number) => number.serialize(kind, writer),
            Self::Bool(flag) => flag.serialize(kind, writer),
        }
    }
}

/// Numbers that are random or counted are kept bit by bit; nothing is compared in the server.
pub(super) fn bits(number: u64) -> Cell<'static> {
    Cell::Big(number.cast_signed())
}

/// Positions are ordered in the server: they have to be below 2^63.
pub(super) fn position(position: Position) -> Result<Cell<'static>, CqlError> {
    match i64::try_from(position.0) {
        Ok(number) => Ok(Cell::Big(number)),
        Err(_) => Err(CqlError::Invalid("a position beyond 2^63".to_owned())),
    }
}

/// A bound on positions: beyond the highest there is, it is that.
pub(super) fn bound(position: Position) -> Cell<'static> {
    Cell::Big(i64::try_from(position.0).unwrap_or(i64::MAX))
}

/// A position as it was read.
pub(super) fn read(number: i64, column: &'static str) -> Result<Position, CqlError> {
    u64::try_from(number).map(Position).map_err(|_| unreadable(column))
}
