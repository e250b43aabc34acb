//! The macro that turns tables like Kafka's JSON definitions into structs with a codec.

use crate::{DecodeError, EncodeError, Reader, Shape, StructSpec, Versions, Wire, Writer};

/// A whole message: a struct that has versions of its own.
pub trait Message: Wire {
    /// The table.
    const SPEC: &'static StructSpec;
    /// The versions of which the table knows every field.
    const VERSIONS: Versions;
    /// The versions in the flexible encoding (KIP-482).
    const FLEXIBLE: Versions;

    /// The shape of this message in `version`.
    #[inline]
    fn shape(version: i16) -> Shape {
        Shape { version, flexible: Self::FLEXIBLE.contains(version), nullable: false }
    }

    /// Reads the message; what follows it stays in the reader.
    ///
    /// # Errors
    ///
    /// If the bytes are not this message in this version. The caller has checked that the version exists.
    fn read(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Self::decode(reader, Self::shape(version))
    }

    /// Writes the message.
    ///
    /// # Errors
    ///
    /// If there is no such version, or it cannot carry the value.
    fn write(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(EncodeError::UnsupportedVersion { version });
        }
        self.encode(writer, Self::shape(version))
    }
}

/// Declares structs of the protocol, one line per field in the order of the wire.
///
/// ```
/// use highwater_wire::{Message, Reader, Str, Writer, messages};
///
/// messages! {
///     /// A request of versions 0 to 2, flexible from 2.
///     GreetingRequest "0-2", flexible "2+" {
///         /// Who is greeted; null greets everybody from version 1 on.
///         name: Option<Str>, "0+", nullable "1+";
///         /// How often.
///         times: i32, "1+", default 1, ignorable true;
///         /// In which ways.
///         ways: Vec<Way>, "2+", tag 0 "2+";
///     }
///
///     /// A way to greet.
///     Way {
///         /// Whether to wave.
///         wave: bool, "2+";
///     }
/// }
///
/// let request = GreetingRequest { name: Some(Str::from("all")), ..GreetingRequest::default() };
/// let mut writer = Writer::new();
/// request.write(&mut writer, 1).unwrap();
/// let bytes = writer.into_encoded().bytes.freeze();
/// assert_eq!(&bytes[..], b"\x00\x03all\x00\x00\x00\x01");
/// assert_eq!(GreetingRequest::read(&mut Reader::new(bytes), 1), Ok(request));
/// ```
///
/// After the type and the versions that have the field come, in this order and each optional: `nullable` with the
/// versions in which it may be null (the type is then an `Option`, or [`crate::Records`]), `tag` with the number and
/// the versions in which it is a tagged field, `default` with an expression, and `ignorable true`.
///
/// A field that the version lacks takes its default when it is read. A value other than the default is an
/// [`EncodeError::NotInVersion`] when it is written, unless the field is ignorable. The default of an `Option` is null
/// also where Kafka's generator would take an empty value; on the wire the two differ only if nobody set the field.
///
/// A struct with versions after its name is a [`Message`]; the others are parts of it and take its version. Each row
/// is also a constant with the name of its field, from which `Wire::KIND` builds the table for tests to read.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[$struct_doc:meta])*
        $struct:ident $($valid:literal, flexible $flexible:literal)? {$(
            $(#[$field_doc:meta])*
            $field:ident: $type:ty, $versions:literal
                $(, nullable $nullable:literal)?
                $(, tag $tag:literal $tagged:literal)?
                $(, default $default:expr)?
                $(, ignorable $ignorable:literal)?;
        )*}
    )*) => {$(
        $(#[$struct_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct {$(
            $(#[$field_doc])*
            pub $field: $type,
        )*}

        #[expect(non_upper_case_globals, reason = "each row of the table has the name of its field")]
        impl $struct {$(
            const $field: $crate::FieldSpec = $crate::FieldSpec {
                name: stringify!($field),
                kind: <$type as $crate::Wire>::KIND,
                versions: $crate::Versions::parse($versions),
                nullable: $crate::__versions_or_none!($($nullable)?),
                tag: $crate::__some_or_none!($($tag)?),
                tagged: $crate::__versions_or_none!($($tagged)?),
                ignorable: $crate::__first_or!($($ignorable,)? false),
            };
        )*}

        impl $struct {
            /// The table of this struct.
            pub const SPEC: &'static $crate::StructSpec = &$crate::StructSpec {
                name: stringify!($struct),
                fields: &[$(Self::$field),*],
            };
        }

        const _: () = $crate::assert_tags_rise($struct::SPEC.fields);

        impl Default for $struct {
            fn default() -> Self {
                Self {$($field: $crate::__first_or!($($default,)? ::core::default::Default::default()),)*}
            }
        }

        impl $crate::Wire for $struct {
            const KIND: $crate::Kind = $crate::Kind::Struct(Self::SPEC);

            fn min_size(shape: $crate::Shape) -> usize {
                let mut size = usize::from(shape.flexible);
                $(if Self::$field.is_plain(shape.version) {
                    size += <$type as $crate::Wire>::min_size(shape.of(&Self::$field));
                })*
                size.max(1)
            }

            fn decode(
                reader: &mut $crate::Reader,
                shape: $crate::Shape,
            ) -> ::core::result::Result<Self, $crate::DecodeError> {
                let mut value = Self::default();
                $(if Self::$field.is_plain(shape.version) {
                    value.$field = $crate::Wire::decode(reader, shape.of(&Self::$field))?;
                })*
                if shape.flexible {
                    reader.tagged_fields(|tag, reader| {
                        $(if Self::$field.is_tagged(shape.version) && Self::$field.tag == Some(tag) {
                            value.$field = $crate::Wire::decode(reader, shape.of(&Self::$field))?;
                            return Ok(true);
                        })*
                        let _ = (tag, reader);
                        Ok(false)
                    })?;
                }
                Ok(value)
            }

            fn encode(
                &self,
                writer: &mut $crate::Writer,
                shape: $crate::Shape,
            ) -> ::core::result::Result<(), $crate::EncodeError> {
                let version = shape.version;
                let mut tags = $crate::Tags::default();
                $(if Self::$field.is_plain(version) {
                    $crate::Wire::encode(&self.$field, writer, shape.of(&Self::$field))?;
                } else if Self::$field.is_tagged(version) || Self::$field.must_be_default(version) {
                    let default: $type =
                        $crate::__first_or!($($default,)? ::core::default::Default::default());
                    if self.$field != default {
                        let Some(tag) = Self::$field.tag.filter(|_| Self::$field.is_tagged(version)) else {
                            return Err($crate::EncodeError::NotInVersion { field: stringify!($field), version });
                        };
                        tags.write(tag, |writer| {
                            $crate::Wire::encode(&self.$field, writer, shape.of(&Self::$field))
                        })?;
                    }
                })*
                if shape.flexible {
                    writer.tagged_fields(&tags);
                }
                Ok(())
            }
        }

        impl $crate::Nullable for $struct {
            fn null_size(_: $crate::Shape) -> usize {
                1
            }

            fn decode_nullable(
                reader: &mut $crate::Reader,
                shape: $crate::Shape,
            ) -> ::core::result::Result<Option<Self>, $crate::DecodeError> {
                // Where null is impossible there is no marker either.
                if shape.nullable && reader.int8()? < 0 {
                    return Ok(None);
                }
                $crate::Wire::decode(reader, shape.plain()).map(Some)
            }

            fn encode_nullable(
                value: Option<&Self>,
                writer: &mut $crate::Writer,
                shape: $crate::Shape,
            ) -> ::core::result::Result<(), $crate::EncodeError> {
                if shape.nullable {
                    writer.int8(if value.is_some() { 1 } else { -1 });
                }
                value.map_or(Ok(()), |value| $crate::Wire::encode(value, writer, shape.plain()))
            }
        }

        $(impl $crate::Message for $struct {
            const SPEC: &'static $crate::StructSpec = Self::SPEC;
            const VERSIONS: $crate::Versions = $crate::Versions::parse($valid);
            const FLEXIBLE: $crate::Versions = $crate::Versions::parse($flexible);
        })?
    )*};
}

/// The first of the values given: an optional one before a fallback.
#[doc(hidden)]
#[macro_export]
macro_rules! __first_or {
    ($first:expr $(, $rest:expr)*) => {
        $first
    };
}

/// An optional range of versions.
#[doc(hidden)]
#[macro_export]
macro_rules! __versions_or_none {
    () => {
        $crate::Versions::NONE
    };
    ($versions:literal) => {
        $crate::Versions::parse($versions)
    };
}

/// An optional value.
#[doc(hidden)]
#[macro_export]
macro_rules! __some_or_none {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}
