//! Base64 as vendors write it.

use base64::{
    alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Reads Base64 with and without padding.
pub(super) const BASE64: GeneralPurpose = lenient(&alphabet::STANDARD);
/// Reads the same with the alphabet for URLs.
pub(super) const BASE64_URL: GeneralPurpose = lenient(&alphabet::URL_SAFE);

const fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new();
    GeneralPurpose::new(alphabet, config.with_decode_padding_mode(DecodePaddingMode::Indifferent))
}
