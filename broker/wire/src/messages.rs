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
/// After the type and the versions that have the field come, in this order and each optional: `nullable` with
/// the versions in which it may be null (the type is then an `Option`, or [`crate::Records`]), `tag` with the
/// number and the versions in which it is a tagged field, `default` with an expression, and `ignorable true`.
///
/// A field that the version lacks takes its default when it is read. A value other than the default is an
/// [`EncodeError::NotInVersion`] when it is written, unless the field is ignorable. The default of an
/// `Option` is null also where Kafka's generator would take an empty value; on the wire the two differ only
/// if nobody set the field.
///
/// A struct with versions after its name is a [`Message`]; the others are parts of it and take its version.
/// Each row is also a constant with the name of its field, from which `Wire::KIND` builds the table for tests
/// to read.
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
                            let field = stringify!($field);
                            return Err($crate::EncodeError::NotInVersion { field, version });
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

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes public structs, here in a private module")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Str;

    messages! {
        /// A message with a field of each sort.
        Sample "0-3", flexible "2+" {
            /// Null from version 1 on.
            name: Option<Str>, "0+", nullable "1+";
            /// A default that is not zero, and that may be lost.
            hint: i32, "1+", default -1, ignorable true;
            /// A value that must not be lost.
            count: i16, "1+";
            /// Gone in version 3.
            old: Str, "0-2", ignorable true;
            /// A struct or null.
            inner: Option<Inner>, "3+", nullable "3+", ignorable true;
            /// A tagged field.
            extra: Vec<i32>, "2+", tag 0 "2+", ignorable true;
            /// Another one, with a default.
            level: i64, "2+", tag 3 "2+", default 7, ignorable true;
        }

        /// A part of it.
        Inner {
            /// A flag.
            flag: bool, "3+";
        }
    }

    fn encoded(sample: &Sample, version: i16) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new();
        sample.write(&mut writer, version)?;
        Ok(writer.into_encoded().bytes.freeze())
    }

    fn decoded(bytes: &'static [u8], version: i16) -> Result<Sample, DecodeError> {
        Sample::read(&mut Reader::new(Bytes::from_static(bytes)), version)
    }

    fn named(name: &str) -> Sample {
        Sample { name: Some(Str::from(name)), ..Sample::default() }
    }

    #[test]
    fn a_field_that_the_version_lacks_takes_its_default() {
        let sample = decoded(b"\x00\x01x\x00\x01o", 0).unwrap();

        assert_eq!(sample, Sample { old: Str::from("o"), ..named("x") });
        assert_eq!((sample.hint, sample.level), (-1, 7));
    }

    #[test]
    fn a_value_that_the_version_lacks_is_dropped_only_if_it_is_ignorable() {
        let hinted = Sample { hint: 5, ..named("x") };
        assert_eq!(encoded(&hinted, 0), encoded(&named("x"), 0));

        let counted = Sample { count: 5, ..named("x") };
        assert_eq!(encoded(&counted, 0), Err(EncodeError::NotInVersion { field: "count", version: 0 }));
        assert!(encoded(&counted, 1).is_ok());
    }

    #[test]
    fn null_is_refused_where_the_version_does_not_allow_it() {
        assert_eq!(encoded(&Sample::default(), 0), Err(EncodeError::UnexpectedNull { version: 0 }));
        assert_eq!(decoded(b"\xff\xff\x00\x00", 0), Err(DecodeError::UnexpectedNull));
        assert_eq!(decoded(b"\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1), Ok(Sample::default()));
    }

    #[test]
    fn a_tagged_field_is_written_only_if_it_is_not_the_default() {
        assert_eq!(encoded(&named("x"), 2).unwrap(), &b"\x02x\xff\xff\xff\xff\x00\x00\x01\x00"[..]);

        let tagged = Sample { extra: vec![9], level: 8, ..named("x") };
        let bytes = b"\x02x\xff\xff\xff\xff\x00\x00\x01\x02\
            \x00\x05\x02\x00\x00\x00\x09\
            \x03\x08\x00\x00\x00\x00\x00\x00\x00\x08";
        assert_eq!(encoded(&tagged, 2).unwrap(), &bytes[..]);
        assert_eq!(decoded(bytes, 2), Ok(tagged));
    }

    #[test]
    fn a_nullable_struct_has_a_marker() {
        let with = Sample { inner: Some(Inner { flag: true }), ..Sample::default() };

        // The marker, the flag, and two empty sections of tagged fields.
        assert_eq!(encoded(&with, 3).unwrap(), &b"\x00\xff\xff\xff\xff\x00\x00\x01\x01\x00\x00"[..]);
        assert_eq!(decoded(b"\x00\xff\xff\xff\xff\x00\x00\x01\x01\x00\x00", 3), Ok(with));
        assert_eq!(encoded(&Sample::default(), 3).unwrap(), &b"\x00\xff\xff\xff\xff\x00\x00\xff\x00"[..]);
        assert_eq!(decoded(b"\x00\xff\xff\xff\xff\x00\x00\xff\x00", 3), Ok(Sample::default()));
    }

    #[test]
    fn an_array_must_fit_at_the_smallest_size_of_its_elements() {
        let shape = Shape { version: 3, flexible: false, nullable: false };

        assert_eq!(Sample::min_size(Sample::shape(0)), 4);
        assert_eq!(Inner::min_size(shape), 1);
        assert_eq!(
            Vec::<i64>::decode(
                &mut Reader::new(Bytes::from_static(&[0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9])),
                shape
            ),
            Err(DecodeError::CountExceedsBytes { count: 2, element_size: 8, remaining: 9 })
        );
    }

    #[test]
    fn the_table_says_what_the_codec_does() {
        let tagged = Sample::SPEC.fields.iter().find(|field| field.name == "level").unwrap();

        assert_eq!((tagged.tag, tagged.tagged), (Some(3), Versions::parse("2+")));
        assert!(tagged.ignorable);
    }
}
