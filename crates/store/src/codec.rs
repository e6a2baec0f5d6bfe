//! How back ends write records as bytes: numbers as varints (seven bits per byte, low first), text and bytes with their
//! length before them, options with a byte before them. Every record begins with a byte for its version.
//!
//! Here are also the records that more than one back end keeps in this form: [roster items and cursors](rows).

pub mod rows;

use crate::StoreError;

/// Appends to a buffer.
pub trait Put {
    /// A number, in one to ten bytes.
    fn put_number(&mut self, number: u64);
    /// Bytes with their length.
    fn put_block(&mut self, block: &[u8]);
    /// Bytes with their length, or that there are none.
    fn put_option(&mut self, block: Option<&[u8]>);
}

impl Put for Vec<u8> {
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn put_block(&mut self, block: &[u8]) {
        self.put_number(block.len() as u64);
        self.extend_from_slice(block);
    }

    fn put_option(&mut self, block: Option<&[u8]>) {
        match block {
            None => self.push(0),
            Some(block) => {
                self.push(1);
                self.put_block(block);
            }
        }
    }
}

/// Reads what [`Put`] wrote; anything else is [`StoreError::Damaged`], never a panic.
pub struct Take<'a> {
    rest: &'a [u8],
    what: &'static str,
}

type Result<T> = std::result::Result<T, StoreError>;

impl<'a> Take<'a> {
    /// Of a record of this name and version.
    pub fn record(bytes: &'a [u8], what: &'static str, version: u8) -> Result<Self> {
        let mut take = Self { rest: bytes, what };
        if take.byte()? == version { Ok(take) } else { Err(take.damaged()) }
    }

    /// The same where there are several versions, up to this one; and which it is.
    pub fn any_record(bytes: &'a [u8], what: &'static str, newest: u8) -> Result<(Self, u8)> {
        let mut take = Self { rest: bytes, what };
        let version = take.byte()?;
        if (1..=newest).contains(&version) { Ok((take, version)) } else { Err(take.damaged()) }
    }

    /// What a record that cannot be read is answered with.
    pub fn damaged(&self) -> StoreError {
        damaged(self.what)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*head)
    }

    /// Bytes.
    pub fn block(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| self.damaged())?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(head)
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a str> {
        let block = self.block()?;
        std::str::from_utf8(block).map_err(|_| self.damaged())
    }

    /// Bytes, or none.
    pub fn option(&mut self) -> Result<Option<&'a [u8]>> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.block().map(Some),
            _ => Err(self.damaged()),
        }
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

/// The error for a record of this name that cannot be read.
pub fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = vec![1];
            bytes.put_number(number);
            let mut take = Take::record(&bytes, "test", 1).unwrap();
            assert_eq!(take.number().unwrap(), number);
            take.end().unwrap();
        }
    }

    #[test]
    fn damage_is_an_error_at_every_length() {
        let mut bytes = vec![1];
        bytes.put_number(1_000_000);
        bytes.put_block(b"block");
        bytes.put_option(Some(b"option"));
        let read = |bytes: &[u8]| -> Result<()> {
            let mut take = Take::record(bytes, "test", 1)?;
            take.number()?;
            take.text()?;
            take.option()?;
            take.end()
        };
        read(&bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut to {length}");
        }
        bytes.push(0);
        assert!(read(&bytes).is_err(), "longer than it should be");
        assert!(Take::record(&[2], "test", 1).is_err(), "another version");
        let endless = [[1].as_slice(), &[0xff; 12]].concat();
        assert!(Take::record(&endless, "test", 1).unwrap().number().is_err());
    }
}
