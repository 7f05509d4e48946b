//! What the fuzz targets share.
#![forbid(unsafe_code)]

/// Cuts an input into records, each with a byte that says what is to be done with it:
///
/// ```text
/// kind (1) | length (2, little-endian) | bytes
/// ```
///
/// The last record takes what there is, so that every input means something.
pub fn records(input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (&[kind, low, high], bytes) = rest.split_first_chunk()?;
        let (record, after) = bytes.split_at(bytes.len().min(u16::from_le_bytes([low, high]).into()));
        rest = after;
        Some((kind, record))
    })
}
