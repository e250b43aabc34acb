//! How each type of field is read and written in each version.

use bytes::Bytes;

use crate::{DecodeError, EncodeError, FieldSpec, Kind, Reader, Records, Str, Uuid, Writer};

/// Elements for which a `Vec` is made at once, before any of them has been read.
const ELEMENTS_AT_ONCE: usize = 1_024;

/// What the encoding of a value depends on besides the value.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The version of the message.
    pub version: i16,
    /// Whether that version is flexible: compact lengths, and tagged fields at the end of each struct
    /// (KIP-482).
    pub flexible: bool,
    /// Whether this field may be null in that version.
    pub nullable: bool,
}

impl Shape {
    /// The shape of a field in a struct of this shape.
    #[inline]
    #[must_use]
    pub const fn of(self, field: &FieldSpec) -> Self {
        Self { nullable: field.nullable.contains(self.version), ..self }
    }

    /// The same for a value that cannot be null, such as the element of an array.
    #[inline]
    #[must_use]
    pub const fn plain(self) -> Self {
        Self { nullable: false, ..self }
    }
}

/// A type that can be a field.
pub trait Wire: Sized {
    /// The type in the words of Kafka's definitions.
    const KIND: Kind;

    /// Length of the shortest value in bytes; at least 1.
    fn min_size(shape: Shape) -> usize;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// If the bytes are not one.
    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError>;

    /// Writes the value.
    ///
    /// # Errors
    ///
    /// If the version cannot carry it. The writer then holds a part of it and is of no use.
    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError>;
}

/// A type whose `Option` can be a field: it has an encoding of null.
pub trait Nullable: Wire {
    /// Length of null in bytes.
    fn null_size(shape: Shape) -> usize {
        Self::min_size(shape)
    }

    /// Reads a value or null.
    ///
    /// # Errors
    ///
    /// If the bytes are neither.
    fn decode_nullable(reader: &mut Reader, shape: Shape) -> Result<Option<Self>, DecodeError>;

    /// Writes a value or null.
    ///
    /// # Errors
    ///
    /// If the version cannot carry the value.
    fn encode_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError>;
}

/// A type of fixed size that reader and writer handle by one call each.
macro_rules! fixed {
    ($($type:ty => $kind:ident, $size:literal, $method:ident;)*) => {$(
        impl Wire for $type {
            const KIND: Kind = Kind::$kind;

            #[inline]
            fn min_size(_: Shape) -> usize {
                $size
            }

            #[inline]
            fn decode(reader: &mut Reader, _: Shape) -> Result<Self, DecodeError> {
                reader.$method()
            }

            #[inline]
            fn encode(&self, writer: &mut Writer, _: Shape) -> Result<(), EncodeError> {
                writer.$method(*self);
                Ok(())
            }
        }
    )*};
}

fixed! {
    bool => Bool, 1, bool;
    i8 => Int8, 1, int8;
    i16 => Int16, 2, int16;
    u16 => Uint16, 2, uint16;
    i32 => Int32, 4, int32;
    i64 => Int64, 8, int64;
    f64 => Float64, 8, float64;
    Uuid => Uuid, 16, uuid;
}

/// Takes the value of a field that cannot be null.
fn present<T: Nullable>(reader: &mut Reader, shape: Shape) -> Result<T, DecodeError> {
    T::decode_nullable(reader, shape)?.ok_or(DecodeError::UnexpectedNull)
}

impl Wire for Str {
    const KIND: Kind = Kind::String;

    #[inline]
    fn min_size(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 2 }
    }

    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError> {
        present(reader, shape)
    }

    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        Self::encode_nullable(Some(self), writer, shape)
    }
}

impl Nullable for Str {
    fn decode_nullable(reader: &mut Reader, shape: Shape) -> Result<Option<Self>, DecodeError> {
        reader.string(shape.flexible)
    }

    fn encode_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.string(value.map(Self::as_str), shape.flexible)
    }
}

impl Wire for Bytes {
    const KIND: Kind = Kind::Bytes;

    #[inline]
    fn min_size(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 4 }
    }

    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError> {
        present(reader, shape)
    }

    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        Self::encode_nullable(Some(self), writer, shape)
    }
}

impl Nullable for Bytes {
    fn decode_nullable(reader: &mut Reader, shape: Shape) -> Result<Option<Self>, DecodeError> {
        reader.bytes(shape.flexible)
    }

    fn encode_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.bytes(value.map(AsRef::as_ref), shape.flexible)
    }
}

impl Wire for Records {
    const KIND: Kind = Kind::Records;

    #[inline]
    fn min_size(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 4 }
    }

    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError> {
        match reader.bytes(shape.flexible)? {
            Some(bytes) => Ok(Self::Bytes(bytes)),
            None if shape.nullable => Ok(Self::Null),
            None => Err(DecodeError::UnexpectedNull),
        }
    }

    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        if !shape.nullable && *self == Self::Null {
            return Err(EncodeError::UnexpectedNull { version: shape.version });
        }
        writer.records(self, shape.flexible)
    }
}

impl<T: Wire> Wire for Vec<T> {
    const KIND: Kind = Kind::Array(&T::KIND);

    #[inline]
    fn min_size(shape: Shape) -> usize {
        if shape.flexible { 1 } else { 4 }
    }

    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError> {
        present(reader, shape)
    }

    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        Self::encode_nullable(Some(self), writer, shape)
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn decode_nullable(reader: &mut Reader, shape: Shape) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.length(shape.flexible)? else {
            return Ok(None);
        };
        reader.admit(count, T::min_size(shape.plain()))?;
        let mut elements = Self::with_capacity(count.min(ELEMENTS_AT_ONCE));
        for _ in 0..count {
            elements.push(T::decode(reader, shape.plain())?);
        }
        Ok(Some(elements))
    }

    fn encode_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.length(value.map(Self::len), shape.flexible)?;
        value.into_iter().flatten().try_for_each(|element| element.encode(writer, shape.plain()))
    }
}

impl<T: Nullable> Wire for Option<T> {
    const KIND: Kind = T::KIND;

    #[inline]
    fn min_size(shape: Shape) -> usize {
        if shape.nullable { T::null_size(shape) } else { T::min_size(shape) }
    }

    fn decode(reader: &mut Reader, shape: Shape) -> Result<Self, DecodeError> {
        match T::decode_nullable(reader, shape)? {
            None if !shape.nullable => Err(DecodeError::UnexpectedNull),
            value => Ok(value),
        }
    }

    fn encode(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        if self.is_none() && !shape.nullable {
            return Err(EncodeError::UnexpectedNull { version: shape.version });
        }
        T::encode_nullable(self.as_ref(), writer, shape)
    }
}
