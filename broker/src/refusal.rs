//! Why a request, or a part of it, is refused: a code and a sentence for the client. Knows no message.

use highwater_protocol::ErrorCode;
use highwater_protocol::wire::Str;

/// Most bytes of a sentence: what it quotes may be as long as a string can be, and then could not be sent.
const SENTENCE_BYTES_MAX: usize = 1000;
/// How many parts of a request that is refused as a whole are told why: a short request may have very many.
const SENTENCES_MAX: usize = 100;

/// A code and a sentence for the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    message: String,
}

/// Refuses with a code and a sentence, which is cut if it is too long.
pub(crate) fn refuse(code: ErrorCode, message: impl ToString) -> Refusal {
    let mut message = message.to_string();
    message.truncate(message.floor_char_boundary(SENTENCE_BYTES_MAX));
    Refusal { code, message }
}

impl Refusal {
    /// The code and the sentence as answers have them.
    pub(crate) fn told(self) -> (i16, Option<Str>) {
        (self.code.code(), Some(Str::from(self.message)))
    }

    /// The same for part number `index` of a request that is refused as a whole: all have the code, the first ones the
    /// sentence too.
    pub(crate) fn told_of_part(&self, index: usize) -> (i16, Option<Str>) {
        let message = (index < SENTENCES_MAX).then(|| Str::from(self.message.as_str()));
        (self.code.code(), message)
    }
}

/// The code and the sentence of what was done or refused, as answers have them.
pub(crate) fn told(result: Result<(), Refusal>) -> (i16, Option<Str>) {
    result.map_or_else(Refusal::told, |()| (ErrorCode::None.code(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_cut_between_characters() {
        let length = |message: &str| refuse(ErrorCode::InvalidRequest, message).message.len();

        assert_eq!(length(&"語".repeat(333)), 999);
        assert_eq!(length(&"語".repeat(334)), 999);
        assert_eq!(length("short"), 5);
    }

    #[test]
    fn of_very_many_parts_the_first_ones_are_told_why() {
        let refusal = refuse(ErrorCode::PolicyViolation, "too many");

        assert_eq!(refusal.told_of_part(99), refusal.clone().told());
        assert_eq!(refusal.told_of_part(100), (ErrorCode::PolicyViolation.code(), None));
    }
}
