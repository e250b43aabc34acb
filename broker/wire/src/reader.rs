//! Reads primitive values from the front of a frame.
//!
//! Every read checks the bytes that remain. A count from the wire allocates nothing by itself: it must fit
//! into the remaining bytes at the element's smallest size, the arrays of one message share a budget of
//! elements, and a `Vec` starts with room for at most 1,024 of them.

use bytes::{Buf, Bytes};

use crate::{DecodeError, Str, Uuid};

/// Most array elements that one message may have, all its arrays together, unless the reader is told
/// otherwise.
///
/// A struct in memory is up to a hundred times larger than its smallest encoding, so the frame limit alone
/// does not bound what a frame of lies costs. This much lets a client read the metadata of several 100,000
/// partitions; for requests from strangers a smaller budget will do.
pub const ELEMENTS_MAX: usize = 1 << 22;

/// Most tagged fields that one struct may have; Kafka defines at most a handful.
pub const TAGS_MAX: usize = 128;

/// Longest string in bytes, in every form (Kafka's generated readers refuse longer ones).
pub(crate) const STRING_MAX: usize = 0x7fff;

/// A cursor over a frame.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    elements_left: usize,
}

impl Reader {
    /// Starts at the first byte of `bytes`, with a budget of [`ELEMENTS_MAX`] array elements.
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, elements_left: ELEMENTS_MAX }
    }

    /// The same with a budget of `elements_max` array elements.
    pub const fn with_elements_max(bytes: Bytes, elements_max: usize) -> Self {
        Self { bytes, elements_left: elements_max }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes not read yet.
    pub fn into_rest(self) -> Bytes {
        self.bytes
    }

    /// Fails unless `needed` bytes remain.
    #[inline]
    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if remaining < needed {
            return Err(DecodeError::UnexpectedEnd { needed, remaining });
        }
        Ok(())
    }

    /// The next `length` bytes as a slice of the frame.
    ///
    /// # Errors
    ///
    /// If fewer remain; this holds for every other read as well.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    /// A signed byte.
    #[inline]
    pub fn int8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    /// A signed 16-bit integer.
    #[inline]
    pub fn int16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    /// An unsigned 16-bit integer.
    #[inline]
    pub fn uint16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_u16())
    }

    /// A signed 32-bit integer.
    #[inline]
    pub fn int32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    /// A signed 64-bit integer.
    #[inline]
    pub fn int64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    /// A 64-bit floating point number.
    #[inline]
    pub fn float64(&mut self) -> Result<f64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_f64())
    }

    /// A truth value; like Kafka, any byte but 0 is true.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.int8()? != 0)
    }

    /// A UUID.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.need(16)?;
        let mut bytes = [0; 16];
        self.bytes.copy_to_slice(&mut bytes);
        Ok(Uuid::from_bytes(bytes))
    }

    /// An unsigned variable-length integer of up to 32 bits.
    ///
    /// Five bytes at most, and no bits above the 32nd. Leading zero groups within the five bytes are read, as
    /// Kafka reads them: an encoder that reserves room before it knows the number may write them.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let value = self.unsigned_groups(5, 32)?;
        u32::try_from(value).map_err(|_| DecodeError::VarintTooLong { bits: 32 })
    }

    /// A zigzag variable-length integer of up to 32 bits.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.uvarint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A zigzag variable-length integer of up to 64 bits: ten bytes at most.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned_groups(10, 64)?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Up to `groups` groups of seven bits, the least significant first.
    fn unsigned_groups(&mut self, groups: u32, bits: u8) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for group in 0..groups {
            self.need(1)?;
            let byte = self.bytes.get_u8();
            let payload = u64::from(byte & 0x7f);
            let shifted = payload << (7 * group);
            if shifted >> (7 * group) != payload {
                return Err(DecodeError::VarintTooLong { bits });
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { bits })
    }

    /// The length of a string: `None` is null.
    pub(crate) fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let length = if flexible { self.compact_length()? } else { signed_length(self.int16()?)? };
        match length {
            Some(length) if length > STRING_MAX => Err(DecodeError::StringTooLong { length }),
            length => Ok(length),
        }
    }

    /// The length of bytes or records, or the count of an array: `None` is null.
    pub(crate) fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible { self.compact_length() } else { signed_length(self.int32()?) }
    }

    /// An unsigned variable-length integer that is one above the length, or zero for null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let Some(length) = self.uvarint()?.checked_sub(1) else {
            return Ok(None);
        };
        usize::try_from(length).map(Some).map_err(|_| DecodeError::VarintTooLong { bits: 32 })
    }

    /// A string, or `None` for null. `flexible` chooses the compact form.
    pub fn string(&mut self, flexible: bool) -> Result<Option<Str>, DecodeError> {
        match self.string_length(flexible)? {
            Some(length) => Str::from_utf8(self.take(length)?).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes, or `None` for null. `flexible` chooses the compact form.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length(flexible)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// Accepts the count of an array whose elements take at least `element_size` bytes each.
    pub(crate) fn admit(&mut self, count: usize, element_size: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if count > remaining / element_size.max(1) {
            return Err(DecodeError::CountExceedsBytes { count, element_size, remaining });
        }
        let allowed = self.elements_left;
        match allowed.checked_sub(count) {
            Some(left) => self.elements_left = left,
            None => return Err(DecodeError::TooManyElements { count, allowed }),
        }
        Ok(())
    }

    /// Reads the tagged fields at the end of a struct. `field` gets each tag and a reader of exactly its
    /// value; it returns whether it knows the tag. Unknown ones are skipped.
    ///
    /// Like Kafka's generated readers, this does not insist on the order of the tags.
    ///
    /// # Errors
    ///
    /// Those of `field`, and a value that is longer than what `field` read.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.uvarint()?;
        // A tagged field takes two bytes at least: its tag and its size.
        let allowed = TAGS_MAX.min(self.remaining() / 2);
        if usize::try_from(count).map_or(true, |count| count > allowed) {
            return Err(DecodeError::TooManyTags { count, allowed });
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size =
                usize::try_from(self.uvarint()?).map_err(|_| DecodeError::VarintTooLong { bits: 32 })?;
            let mut value = Self { bytes: self.take(size)?, elements_left: self.elements_left };
            let known = field(tag, &mut value)?;
            self.elements_left = value.elements_left;
            let extra = value.remaining();
            if known && extra > 0 {
                return Err(DecodeError::TagSizeMismatch { tag, extra });
            }
        }
        Ok(())
    }

    /// Skips the tagged fields at the end of a struct that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

/// -1 is null, anything below is a lie.
fn signed_length(length: impl Into<i64>) -> Result<Option<usize>, DecodeError> {
    match length.into() {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn a_varint_is_five_bytes_at_most() {
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).uvarint(), Ok(u32::MAX));
        assert_eq!(reader(&[0x80, 0x80, 0x80, 0x80, 0x00]).uvarint(), Ok(0));

        let too_long = Err(DecodeError::VarintTooLong { bits: 32 });
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(), too_long);
        assert_eq!(reader(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).uvarint(), too_long);
    }

    #[test]
    fn a_varlong_is_ten_bytes_at_most() {
        let longest = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(reader(longest).varlong(), Ok(i64::MIN));

        let too_wide = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(reader(too_wide).varlong(), Err(DecodeError::VarintTooLong { bits: 64 }));
        let too_long = &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(reader(too_long).varlong(), Err(DecodeError::VarintTooLong { bits: 64 }));
    }

    #[test]
    fn signed_varints_are_zigzag() {
        assert_eq!(reader(&[0x00]).varint(), Ok(0));
        assert_eq!(reader(&[0x01]).varint(), Ok(-1));
        assert_eq!(reader(&[0x02]).varint(), Ok(1));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(i32::MIN));
    }

    #[test]
    fn short_input_says_how_much_is_missing() {
        assert_eq!(reader(&[1, 2, 3]).int32(), Err(DecodeError::UnexpectedEnd { needed: 4, remaining: 3 }));
        assert_eq!(
            reader(&[0, 9, b'a']).string(false),
            Err(DecodeError::UnexpectedEnd { needed: 9, remaining: 1 })
        );
    }

    #[test]
    fn null_is_minus_one_and_nothing_below() {
        assert_eq!(reader(&[0xff, 0xff]).string(false), Ok(None));
        assert_eq!(reader(&[0x00]).string(true), Ok(None));
        assert_eq!(reader(&[0xff, 0xfe]).string(false), Err(DecodeError::NegativeLength(-2)));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xfe]).bytes(false), Err(DecodeError::NegativeLength(-2)));
    }

    #[test]
    fn a_compact_string_keeps_the_limit_of_the_plain_one() {
        // 0x8001 - 1 = 32768 bytes.
        let claimed = reader(&[0x81, 0x80, 0x02]).string(true);

        assert_eq!(claimed, Err(DecodeError::StringTooLong { length: 0x8000 }));
    }

    #[test]
    fn a_string_borrows_from_its_frame() {
        let frame = Bytes::from_static(&[0, 2, b'h', b'i']);

        let text = Reader::new(frame.clone()).string(false).unwrap().unwrap();

        assert_eq!(text, "hi");
        assert_eq!(text.as_bytes().as_ptr(), frame.slice(2..).as_ptr());
    }

    #[test]
    fn unknown_tags_are_skipped_and_known_ones_must_fill_their_size() {
        let bytes = &[2, 7, 1, 0xaa, 9, 2, 0, 5];
        let mut seen = None;
        let read = reader(bytes).tagged_fields(|tag, value| {
            if tag == 9 {
                seen = Some(value.int16()?);
            }
            Ok(tag == 9)
        });
        assert_eq!((read, seen), (Ok(()), Some(5)));

        let short = reader(bytes).tagged_fields(|tag, value| {
            if tag == 9 {
                value.int8()?;
            }
            Ok(tag == 9)
        });
        assert_eq!(short, Err(DecodeError::TagSizeMismatch { tag: 9, extra: 1 }));
    }

    #[test]
    fn more_tags_than_bytes_are_refused() {
        let read = reader(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]).skip_tagged_fields();

        assert_eq!(read, Err(DecodeError::TooManyTags { count: u32::MAX, allowed: 1 }));
    }

    #[test]
    fn the_arrays_of_a_message_share_one_budget() {
        let mut reader = Reader::with_elements_max(Bytes::from_static(&[0; 16]), 5);

        assert_eq!(reader.admit(3, 1), Ok(()));
        assert_eq!(reader.admit(3, 1), Err(DecodeError::TooManyElements { count: 3, allowed: 2 }));
        assert_eq!(reader.admit(2, 1), Ok(()));
    }
}
