//! Valid encodings of any message in any version, made from its table alone.
//!
//! The generator writes bytes with code of its own, not with the writer under test. Every tagged field is
//! present and differs from its default, since encoders leave defaults out. Along with the bytes come what a
//! decoder must find, and where the counts of arrays stand.

use highwater_protocol::wire::{FieldSpec, Kind, Message, StructSpec};

/// One encoding.
#[derive(Debug, Default)]
pub(crate) struct Generated {
    /// The message without any header.
    pub(crate) bytes: Vec<u8>,
    /// Each field and, where its `Debug` form is the same everywhere, its value, in the order of the table.
    pub(crate) found: Vec<(&'static str, Option<String>)>,
    /// The positions of array counts in `bytes`.
    pub(crate) counts: Vec<Count>,
}

/// Where the count of an array stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    /// Position of its first byte.
    pub(crate) at: usize,
    /// Whether it is a variable-length integer; else it has four bytes.
    pub(crate) compact: bool,
}

/// Makes an encoding of `M`; the same seed makes the same one.
pub(crate) fn generate<M: Message>(version: i16, seed: u64) -> Generated {
    Generator::new::<M>(version, seed).fields(M::SPEC, false)
}

/// Makes encodings of `M` that are wrong in one thing: each has null in another field that is null in no
/// version. With each comes the name of that field.
pub(crate) fn generate_nulls<M: Message>(version: i16, seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    let encodings = (0..).map_while(|site| {
        let mut generator = Generator::new::<M>(version, seed);
        generator.forbidden_null_after = Some(site);
        let generated = generator.fields(M::SPEC, false);
        generator.forbidden_null.map(|name| (name, generated.bytes))
    });
    encodings.collect()
}

struct Generator {
    random: u64,
    version: i16,
    flexible: bool,
    /// How many fields that are never null are left before the one that is null all the same.
    forbidden_null_after: Option<usize>,
    /// The field that became null so.
    forbidden_null: Option<&'static str>,
}

impl Generated {
    /// Puts another encoding behind this one.
    fn append(&mut self, other: Self) {
        self.append_bytes_of(&other);
        self.found.extend(other.found);
    }

    fn append_bytes_of(&mut self, other: &Self) {
        let base = self.bytes.len();
        self.counts.extend(other.counts.iter().map(|count| Count { at: base + count.at, ..*count }));
        self.bytes.extend_from_slice(&other.bytes);
    }
}

impl Generator {
    fn new<M: Message>(version: i16, seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            version,
            flexible: M::FLEXIBLE.contains(version),
            forbidden_null_after: None,
            forbidden_null: None,
        }
    }

    /// xorshift64*: good enough to fill fields, and without a dependency.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A struct: its plain fields, then its tagged ones. `solid` asks for values that are no defaults.
    fn fields(&mut self, spec: &StructSpec, solid: bool) -> Generated {
        let mut whole = Generated::default();
        let mut tagged = Generated::default();
        let mut tags = 0;
        for field in spec.fields {
            if field.is_plain(self.version) {
                let value = self.field(field, solid);
                whole.append_bytes_of(&value);
                whole.found.extend(value.found);
            } else if field.is_tagged(self.version) {
                let value = self.field(field, true);
                tags += 1;
                uvarint(&mut tagged.bytes, field.tag.unwrap());
                uvarint(&mut tagged.bytes, u32::try_from(value.bytes.len()).unwrap());
                tagged.append_bytes_of(&value);
                whole.found.extend(value.found);
            }
        }
        if self.flexible {
            uvarint(&mut whole.bytes, tags);
            whole.append_bytes_of(&tagged);
        }
        whole
    }

    fn field(&mut self, field: &FieldSpec, solid: bool) -> Generated {
        let nullable = field.nullable.contains(self.version);
        let null = if nullable { !solid && self.below(4) == 0 } else { self.is_forbidden_null(field) };
        let mut value = if null { self.null(field.kind) } else { self.value(field.kind, solid) };
        if nullable && !null && matches!(field.kind, Kind::Struct(_)) {
            let marked = value;
            value = Generated { bytes: vec![1], ..Generated::default() };
            value.append(marked);
        }
        match value.found.first_mut() {
            // A scalar does not know its name.
            Some((name, _)) if name.is_empty() => *name = field.name,
            _ => value.found.insert(0, (field.name, None)),
        }
        value
    }

    /// Whether this is the field to be null although it must not.
    fn is_forbidden_null(&mut self, field: &FieldSpec) -> bool {
        let has_null = field.nullable.is_empty()
            && matches!(field.kind, Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_));
        match self.forbidden_null_after {
            Some(0) if has_null => {
                self.forbidden_null_after = None;
                self.forbidden_null = Some(field.name);
                true
            }
            Some(fields) if has_null => {
                self.forbidden_null_after = Some(fields - 1);
                false
            }
            _ => false,
        }
    }

    fn null(&self, kind: Kind) -> Generated {
        let bytes = match (kind, self.flexible) {
            (Kind::Struct(_), _) => vec![0xff],
            (_, true) => vec![0],
            (Kind::String, false) => vec![0xff; 2],
            (_, false) => vec![0xff; 4],
        };
        Generated { bytes, ..Generated::default() }
    }

    fn value(&mut self, kind: Kind, solid: bool) -> Generated {
        match kind {
            Kind::Bool => {
                let value = solid || self.below(2) == 1;
                scalar(vec![u8::from(value)], value.to_string())
            }
            Kind::Int8 => self.integer(1, solid),
            Kind::Int16 => self.integer(2, solid),
            Kind::Uint16 => {
                let value = self.next().to_be_bytes();
                let value = [value[0], value[1] | u8::from(solid)];
                scalar(value.to_vec(), u16::from_be_bytes(value).to_string())
            }
            Kind::Int32 => self.integer(4, solid),
            Kind::Int64 => self.integer(8, solid),
            Kind::Float64 => self.float(),
            Kind::Uuid => self.raw(16),
            Kind::String => self.string(solid),
            Kind::Bytes | Kind::Records => {
                let length = usize::try_from(self.below(40)).unwrap() + usize::from(solid);
                let mut value = Generated { bytes: self.length(length), ..Generated::default() };
                value.append(self.raw(length));
                value
            }
            Kind::Array(element) => self.array(*element, solid),
            Kind::Struct(spec) => self.fields(spec, solid),
        }
    }

    /// A number of `size` bytes; one in four is an edge, unless it must not be a default.
    fn integer(&mut self, size: u32, solid: bool) -> Generated {
        let unused = 64 - 8 * size;
        let mut value = (self.next() as i64) >> unused;
        if solid {
            // No default in the tables is even and above 0.
            value = (value & (i64::MAX >> (unused + 1)) & !1) | 2;
        } else if self.below(4) == 0 {
            let edges = [0, -1, 1, i64::MAX >> unused, i64::MIN >> unused];
            value = edges[usize::try_from(self.below(5)).unwrap()];
        }
        let all = value.to_be_bytes();
        scalar(all[8 - size as usize..].to_vec(), value.to_string())
    }

    /// A number that equals itself: NaN does not, and the codecs are compared by their values.
    fn float(&mut self) -> Generated {
        let mut value = self.raw(8);
        // The exponent is not all ones.
        value.bytes[0] &= 0xbf;
        value
    }

    fn raw(&mut self, length: usize) -> Generated {
        let bytes = (0..length).map(|_| self.next().to_be_bytes()[0] | 1).collect();
        Generated { bytes, ..Generated::default() }
    }

    fn string(&mut self, solid: bool) -> Generated {
        let length = usize::try_from(self.below(200)).unwrap() + usize::from(solid);
        let letters = ['a', 'b', 'z', '-', '.', '0', 'ß', '語'];
        let text: String = (0..length).map(|_| letters[usize::try_from(self.below(8)).unwrap()]).collect();
        let mut bytes = if self.flexible {
            self.length(text.len())
        } else {
            i16::try_from(text.len()).unwrap().to_be_bytes().to_vec()
        };
        bytes.extend_from_slice(text.as_bytes());
        scalar(bytes, format!("{text:?}"))
    }

    fn array(&mut self, element: Kind, solid: bool) -> Generated {
        let count = usize::try_from(self.below(4)).unwrap() + usize::from(solid);
        let mut whole = Generated {
            bytes: self.length(count),
            counts: vec![Count { at: 0, compact: self.flexible }],
            found: Vec::new(),
        };
        for _ in 0..count {
            let mut value = self.value(element, solid);
            value.found.retain(|(name, _)| !name.is_empty());
            whole.append(value);
        }
        whole
    }

    /// The length of bytes or the count of an array.
    fn length(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.flexible {
            uvarint(&mut bytes, u32::try_from(length).unwrap() + 1);
        } else {
            bytes.extend_from_slice(&i32::try_from(length).unwrap().to_be_bytes());
        }
        bytes
    }
}

/// A value whose `Debug` form is known and whose name is not.
fn scalar(bytes: Vec<u8>, text: String) -> Generated {
    Generated { bytes, found: vec![("", Some(text))], counts: Vec::new() }
}

fn uvarint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}
