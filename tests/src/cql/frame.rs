//! Frames: nine bytes of header, then the body. (CQL protocol v4, section 2)

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Larger than anything a test sends or asks for.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// The bit that tells a response's version from a request's.
const RESPONSE: u8 = 0x80;

/// Opcodes. (section 2.4)
pub mod opcode {
    #![allow(missing_docs)] // the names are the protocol's
    pub const ERROR: u8 = 0x00;
    pub const STARTUP: u8 = 0x01;
    pub const READY: u8 = 0x02;
    pub const OPTIONS: u8 = 0x05;
    pub const SUPPORTED: u8 = 0x06;
    pub const QUERY: u8 = 0x07;
    pub const RESULT: u8 = 0x08;
    pub const PREPARE: u8 = 0x09;
    pub const EXECUTE: u8 = 0x0A;
    pub const BATCH: u8 = 0x0D;
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The version with the direction in its highest bit.
    pub version: u8,
    /// Compression, tracing, warnings.
    pub flags: u8,
    /// Which request a response answers; negative for events.
    pub stream: i16,
    /// What it is, see [`opcode`].
    pub opcode: u8,
    /// The rest.
    pub body: Vec<u8>,
}

impl Frame {
    /// A request of protocol 4.
    pub fn request(stream: i16, opcode: u8, body: Vec<u8>) -> Self {
        Self { version: 4, flags: 0, stream, opcode, body }
    }

    /// An answer to this request.
    pub fn answer(&self, opcode: u8, body: Vec<u8>) -> Self {
        Self { version: self.version | RESPONSE, flags: 0, stream: self.stream, opcode, body }
    }

    /// Reads the next one; `None` if the peer has closed the connection between two of them.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>> {
        let mut header = [0; 9];
        if from.read(&mut header[..1]).await? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut header[1..]).await?;
        let [version, flags, s1, s2, opcode, l1, l2, l3, l4] = header;
        ensure!(matches!(version & !RESPONSE, 3 | 4), "protocol version {version:#x}");
        let length = usize::try_from(u32::from_be_bytes([l1, l2, l3, l4]))?;
        if length > MAX_BODY {
            bail!("a frame of {length} bytes");
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Ok(Some(Self { version, flags, stream: i16::from_be_bytes([s1, s2]), opcode, body }))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.body.len());
        bytes.extend([self.version, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.push(self.opcode);
        bytes.extend(u32::try_from(self.body.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// Takes a body apart. Running out of bytes is an error.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.0.split_at_checked(length) else { bail!("a body ends too early") };
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn short(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn int(&mut self) -> Result<i32> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// `[string]`
    pub(super) fn string(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.short_bytes()?).into_owned())
    }

    /// `[long string]`
    pub(super) fn long_string(&mut self) -> Result<String> {
        let length = usize::try_from(self.int()?)?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// `[short bytes]`
    pub(super) fn short_bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.short()?.into();
        self.take(length)
    }

    /// `[bytes]`: nothing if the length is negative.
    pub(super) fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.int()?;
        if length < 0 { Ok(None) } else { self.take(usize::try_from(length)?).map(Some) }
    }
}

/// `[string]`
pub(super) fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// `[long string]`
pub(super) fn long_string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_reads_as_it_was_written() {
        let frame = Frame::request(-3, opcode::QUERY, vec![1, 2, 3]);
        let bytes = [frame.bytes(), frame.answer(opcode::RESULT, Vec::new()).bytes()].concat();
        let mut from = &bytes[..];
        assert_eq!(Frame::read(&mut from).await.unwrap(), Some(frame));
        let answer = Frame::read(&mut from).await.unwrap().unwrap();
        assert_eq!((answer.version, answer.stream, answer.opcode), (0x84, -3, opcode::RESULT));
        assert_eq!(Frame::read(&mut from).await.unwrap(), None);
        assert!(Frame::read(&mut &bytes[..10]).await.is_err(), "a frame that ends too early");
        let huge = [4, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff];
        assert!(Frame::read(&mut &huge[..]).await.is_err());
    }
}
