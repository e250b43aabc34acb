//! The UUID of the wire, with Kafka's way to print it.
//!
//! Kafka writes UUIDs in text as URL-safe base64 without padding (22 characters; `Uuid.java`), so that a
//! topic id here reads as it does in Kafka's tools and in `partition.metadata`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LENGTH: usize = 22;

/// Sixteen bytes that name a topic, a directory or a client.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uuid([u8; 16]);

/// Text that is not a UUID in Kafka's form.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a UUID is written as 22 characters of URL-safe base64")]
pub struct InvalidUuid;

impl Uuid {
    /// The UUID that stands for none.
    pub const ZERO: Self = Self([0; 16]);

    /// The UUID with these bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 characters of six bits and one of two, which stand at the top of their six.
        let bits = u128::from_be_bytes(self.0);
        let sextet = |shift: u32| (bits >> shift) & 0x3f;
        let sextets = (0..21).map(|i| sextet(122 - 6 * i)).chain([(bits & 0x3) << 4]);
        for value in sextets {
            let index = usize::try_from(value).map_err(|_| fmt::Error)?;
            let character = ALPHABET.get(index).copied().ok_or(fmt::Error)?;
            fmt::Write::write_char(f, char::from(character))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        if text.len() != TEXT_LENGTH {
            return Err(InvalidUuid);
        }
        let mut bits = 0_u128;
        for (position, character) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|known| *known == character).ok_or(InvalidUuid)?;
            let value = u128::try_from(value).map_err(|_| InvalidUuid)?;
            bits = match position {
                21 if value & 0xf == 0 => (bits << 2) | (value >> 4),
                21 => return Err(InvalidUuid),
                _ => (bits << 6) | value,
            };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_kafkas_tools_do() {
        // The two reserved values of Kafka's Uuid.java.
        let one = Uuid::from_bytes(1_u128.to_be_bytes());

        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(one.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn what_it_prints_it_reads() {
        let id = Uuid::from_bytes(*b"\x00\xff\x10\x83\xfe\x01\x77\x20\x80\x09\xaa\x55\xc3\x3c\x18\xe7");

        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAR".parse::<Uuid>(), Err(InvalidUuid));
        assert_eq!("short".parse::<Uuid>(), Err(InvalidUuid));
    }
}
