//! Zigzag varints, as records use them (Kafka: `ByteUtils.readVarint`, `readVarlong`).
//!
//! Stricter than Kafka in one point: bits beyond the width of the type are refused instead of dropped.

/// Why bytes are not a varint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum VarintError {
    /// The bytes end inside it.
    Short,
    /// It says more than the type holds: too many bytes, or too many bits in the last one.
    Overlong,
}

/// Takes a signed 32-bit varint off the front of `bytes`.
#[inline]
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Result<i32, VarintError> {
    let raw = take_unsigned(bytes, 32)? as u32;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Takes a signed 64-bit varint off the front of `bytes`.
#[inline]
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    let raw = take_unsigned(bytes, 64)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

#[inline]
fn take_unsigned(bytes: &mut &[u8], width_bits: u32) -> Result<u64, VarintError> {
    // Nearly every varint of a record is one or two bytes long.
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Ok(first.into())
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *bytes = rest;
            Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => take_long(bytes, width_bits),
    }
}

fn take_long(bytes: &mut &[u8], width_bits: u32) -> Result<u64, VarintError> {
    let largest = u64::MAX >> (64 - width_bits);
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = 7 * index as u32;
        let bits = u64::from(byte & 0x7f);
        if shift >= width_bits || bits > largest >> shift {
            return Err(VarintError::Overlong);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(VarintError::Short)
}

/// Appends `value` in its shortest form, which is the same for both widths.
pub(crate) fn put_i64(bytes: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

/// How many bytes [`put_i64`] appends for `value`.
pub(crate) const fn len_i64(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (raw | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_of_varint_reads_back_and_its_length_is_foretold() {
        for shift in 0..64 {
            for value in [i64::MAX >> shift, i64::MIN >> shift, 1 << shift, -(1 << (shift / 2))] {
                let mut bytes = Vec::new();
                put_i64(&mut bytes, value);

                assert_eq!(bytes.len(), len_i64(value), "{value}");
                assert_eq!(take_i64(&mut &bytes[..]), Ok(value));
                let narrow = take_i32(&mut &bytes[..]);
                assert_eq!(narrow, i32::try_from(value).map_err(|_| VarintError::Overlong), "{value}");
            }
        }
    }

    #[test]
    fn bits_beyond_the_type_are_refused() {
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]), Ok(i32::MIN));
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), Err(VarintError::Overlong));
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), Err(VarintError::Overlong));
        assert_eq!(take_i64(&mut &[0x80; 11][..]), Err(VarintError::Overlong));
        assert_eq!(take_i64(&mut &[0x80; 10][..]), Err(VarintError::Short));
        assert_eq!(take_i64(&mut &[][..]), Err(VarintError::Short));
    }
}
