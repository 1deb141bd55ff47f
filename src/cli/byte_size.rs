//! Byte sizes as values of options.

/// Parses a byte size: `256MiB`, `1GiB`, `64KiB`, `100000`.
pub fn parse_byte_size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("unknown unit '{unit}'; expected a size such as 256MiB")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a size such as 256MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_size_with_unit_is_parsed() {
        assert_eq!(parse_byte_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_byte_size("1g"), Ok(1 << 30));
        assert_eq!((parse_byte_size("0"), parse_byte_size("64 KiB")), (Ok(0), Ok(64 << 10)));
        for wrong in ["", "MiB", "1TB", "-1", "1.5MiB", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_byte_size(wrong).is_err(), "{wrong}");
        }
    }
}
