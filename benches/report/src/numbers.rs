//! How numbers are written.

/// As many digits as say something: `1.04`, `12.5`, `348`, `12,345`.
pub fn readable(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        whole(value)
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Without a fraction.
pub fn whole(value: f64) -> String {
    grouped(value.round() as i64)
}

/// With a comma after each three digits.
fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        let written = [0.0, 1.036, -2.55, 12.46, 348.4, 12345.6, 1_234_567.0].map(readable);
        assert_eq!(written, ["0.00", "1.04", "-2.55", "12.5", "348", "12,346", "1,234,567"]);
    }

    #[test]
    fn counts_have_no_fraction() {
        assert_eq!([0.0, 3.0, -1000.0, 65_536.0].map(whole), ["0", "3", "-1,000", "65,536"]);
    }
}
