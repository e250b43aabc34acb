//! Writes primitive values, and keeps the places where bytes from elsewhere belong.

use bytes::{BufMut, Bytes, BytesMut};

use crate::reader::STRING_MAX;
use crate::{EncodeError, Records, Uuid};

/// A place in [`Encoded::bytes`] at which `len` bytes from elsewhere are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Position in the bytes that are here.
    pub at: usize,
    /// Length in bytes of what belongs there.
    pub len: usize,
}

/// What an encoder produced: bytes, and cuts in rising order of their positions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Encoded {
    /// The bytes that are here.
    pub bytes: BytesMut,
    /// Where others belong.
    pub cuts: Vec<Cut>,
}

/// One stretch of an encoded message, in the order of sending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Bytes to send as they are.
    Bytes(Bytes),
    /// `len` bytes of deferred records.
    Deferred {
        /// Length in bytes.
        len: usize,
    },
}

impl Encoded {
    /// Length on the wire: the bytes here and those deferred.
    pub fn wire_len(&self) -> usize {
        self.bytes.len() + self.cuts.iter().map(|cut| cut.len).sum::<usize>()
    }

    /// The stretches in the order of sending. Nothing is copied.
    pub fn into_pieces(self) -> Vec<Piece> {
        let mut rest = self.bytes.freeze();
        let mut sent = 0;
        let mut pieces = Vec::with_capacity(2 * self.cuts.len() + 1);
        for cut in self.cuts {
            let before = rest.split_to(cut.at - sent);
            sent = cut.at;
            if !before.is_empty() {
                pieces.push(Piece::Bytes(before));
            }
            pieces.push(Piece::Deferred { len: cut.len });
        }
        if !rest.is_empty() {
            pieces.push(Piece::Bytes(rest));
        }
        pieces
    }
}

/// A growing message.
#[derive(Debug, Default)]
pub struct Writer {
    encoded: Encoded,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty message with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { encoded: Encoded { bytes: BytesMut::with_capacity(capacity), cuts: Vec::new() } }
    }

    /// Length on the wire so far, deferred records included.
    pub fn wire_len(&self) -> usize {
        self.encoded.wire_len()
    }

    /// What was written.
    pub fn into_encoded(self) -> Encoded {
        self.encoded
    }

    /// Bytes as they are, without a length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.encoded.bytes.put_slice(bytes);
    }

    /// A signed byte.
    #[inline]
    pub fn int8(&mut self, value: i8) {
        self.encoded.bytes.put_i8(value);
    }

    /// A signed 16-bit integer.
    #[inline]
    pub fn int16(&mut self, value: i16) {
        self.encoded.bytes.put_i16(value);
    }

    /// An unsigned 16-bit integer.
    #[inline]
    pub fn uint16(&mut self, value: u16) {
        self.encoded.bytes.put_u16(value);
    }

    /// A signed 32-bit integer.
    #[inline]
    pub fn int32(&mut self, value: i32) {
        self.encoded.bytes.put_i32(value);
    }

    /// A signed 64-bit integer.
    #[inline]
    pub fn int64(&mut self, value: i64) {
        self.encoded.bytes.put_i64(value);
    }

    /// A 64-bit floating point number.
    #[inline]
    pub fn float64(&mut self, value: f64) {
        self.encoded.bytes.put_f64(value);
    }

    /// A truth value: 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.int8(i8::from(value));
    }

    /// A UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    /// An unsigned variable-length integer.
    #[inline]
    pub fn uvarint(&mut self, value: u32) {
        self.groups(u64::from(value));
    }

    /// A zigzag variable-length integer of 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zigzag variable-length integer of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.groups(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Groups of seven bits, the least significant first.
    fn groups(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.encoded.bytes.put_u8(low & 0x7f);
                return;
            }
            self.encoded.bytes.put_u8(low | 0x80);
        }
    }

    /// A string, or null. `flexible` chooses the compact form.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] above 32,767 bytes.
    pub fn string(&mut self, text: Option<&str>, flexible: bool) -> Result<(), EncodeError> {
        let length = text.map(str::len);
        if let Some(length) = length.filter(|length| *length > STRING_MAX) {
            return Err(EncodeError::TooLong { length, limit: STRING_MAX });
        }
        if flexible {
            self.length(length, true)?;
        } else {
            let length = length.map_or(Ok(-1), i16::try_from);
            self.int16(length.expect("the limit of a string is that of its length"));
        }
        self.raw(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes, or null. `flexible` chooses the compact form.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] at 2 GiB.
    pub fn bytes(&mut self, bytes: Option<&[u8]>, flexible: bool) -> Result<(), EncodeError> {
        self.length(bytes.map(<[u8]>::len), flexible)?;
        self.raw(bytes.unwrap_or_default());
        Ok(())
    }

    /// Records: their length, and the bytes or a cut.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] at 2 GiB.
    pub fn records(&mut self, records: &Records, flexible: bool) -> Result<(), EncodeError> {
        match records {
            Records::Null => self.length(None, flexible),
            Records::Bytes(bytes) => self.bytes(Some(bytes), flexible),
            Records::Deferred { len } => {
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                self.length(Some(len), flexible)?;
                if len > 0 {
                    self.encoded.cuts.push(Cut { at: self.encoded.bytes.len(), len });
                }
                Ok(())
            }
        }
    }

    /// The length of bytes or records, or the count of an array; `None` is null.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] above `i32::MAX`.
    pub fn length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let Some(length) = length else {
            if flexible {
                self.uvarint(0);
            } else {
                self.int32(-1);
            }
            return Ok(());
        };
        let limit = 0x7fff_ffff;
        let short = i32::try_from(length).map_err(|_| EncodeError::TooLong { length, limit })?;
        if flexible {
            self.uvarint(short.cast_unsigned() + 1);
        } else {
            self.int32(short);
        }
        Ok(())
    }

    /// The tagged fields at the end of a struct.
    ///
    /// # Errors
    ///
    /// None that the fields in `tags` did not meet before.
    pub fn tagged_fields(&mut self, tags: &Tags) {
        self.uvarint(tags.count);
        self.raw(&tags.body.encoded.bytes);
    }

    /// Writes the length of what follows the first four bytes into them: the size prefix of a frame, for
    /// which the caller has written four bytes at the start.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] at 2 GiB, deferred records included.
    pub fn finish_frame(mut self) -> Result<Encoded, EncodeError> {
        let length = self.wire_len().saturating_sub(4);
        let limit = 0x7fff_ffff;
        let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { length, limit })?;
        if let Some(prefix) = self.encoded.bytes.first_chunk_mut::<4>() {
            *prefix = size.to_be_bytes();
        }
        Ok(self.encoded)
    }
}

/// Tagged fields on their way into a struct: they are counted before they are written.
#[derive(Debug, Default)]
pub struct Tags {
    count: u32,
    body: Writer,
}

impl Tags {
    /// Adds a field; tags must come in rising order.
    ///
    /// # Errors
    ///
    /// Those of `value`, and [`EncodeError::Deferred`].
    pub fn write(
        &mut self,
        tag: u32,
        value: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut writer = Writer::new();
        value(&mut writer)?;
        let encoded = writer.into_encoded();
        if !encoded.cuts.is_empty() {
            return Err(EncodeError::Deferred);
        }
        let length = encoded.bytes.len();
        let size = u32::try_from(length).map_err(|_| EncodeError::TooLong { length, limit: 0xffff_ffff })?;
        self.count += 1;
        self.body.uvarint(tag);
        self.body.uvarint(size);
        self.body.raw(&encoded.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reader;

    fn written(write: impl FnOnce(&mut Writer)) -> Reader {
        let mut writer = Writer::new();
        write(&mut writer);
        Reader::new(writer.into_encoded().bytes.freeze())
    }

    proptest! {
        #[test]
        fn variable_length_integers_come_back(small: i32, large: i64, count: u32) {
            let mut reader = written(|writer| {
                writer.varint(small);
                writer.varlong(large);
                writer.uvarint(count);
            });

            prop_assert_eq!(reader.varint(), Ok(small));
            prop_assert_eq!(reader.varlong(), Ok(large));
            prop_assert_eq!(reader.uvarint(), Ok(count));
            prop_assert_eq!(reader.remaining(), 0);
        }

        #[test]
        fn strings_and_bytes_come_back(text: Option<String>, bytes: Option<Vec<u8>>, flexible: bool) {
            let mut reader = written(|writer| {
                writer.string(text.as_deref(), flexible).unwrap();
                writer.bytes(bytes.as_deref(), flexible).unwrap();
            });

            prop_assert_eq!(reader.string(flexible).unwrap().map(String::from), text);
            prop_assert_eq!(reader.bytes(flexible).unwrap().map(Vec::from), bytes);
        }
    }

    #[test]
    fn varints_have_kafkas_bytes() {
        let mut writer = Writer::new();
        writer.uvarint(300);
        writer.varint(-1);
        writer.varlong(64);

        assert_eq!(&writer.into_encoded().bytes[..], &[0xac, 0x02, 0x01, 0x80, 0x01]);
    }

    #[test]
    fn deferred_records_leave_a_cut_and_count_into_the_frame() {
        let mut writer = Writer::new();
        writer.int32(0);
        writer.records(&Records::Deferred { len: 500 }, true).unwrap();
        writer.int8(7);
        let encoded = writer.finish_frame().unwrap();

        assert_eq!(encoded.cuts, [Cut { at: 6, len: 500 }]);
        assert_eq!(&encoded.bytes[..], &[0, 0, 1, 247, 0xf5, 0x03, 7]);
        assert_eq!(encoded.wire_len(), 507);
        assert_eq!(
            encoded.into_pieces(),
            [
                Piece::Bytes(Bytes::from_static(&[0, 0, 1, 247, 0xf5, 0x03])),
                Piece::Deferred { len: 500 },
                Piece::Bytes(Bytes::from_static(&[7])),
            ]
        );
    }

    #[test]
    fn a_string_that_its_length_cannot_express_is_refused() {
        let text = "x".repeat(32_768);

        for flexible in [false, true] {
            let refused = Writer::new().string(Some(&text), flexible);
            assert_eq!(refused, Err(EncodeError::TooLong { length: 32_768, limit: 32_767 }));
        }
    }
}
