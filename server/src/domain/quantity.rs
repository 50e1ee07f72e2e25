//! Kubernetes quantities such as `500m`, `4` and `16Gi`: exact values with one canonical text, the one that an apiserver
//! gives back, so that what is applied and what is observed compare equal.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// The largest magnitude, 2⁶³−1 units, is also where Kubernetes stops for binary suffixes.
const LARGEST: i128 = i64::MAX as i128 * NANOS_PER_UNIT;

/// A Kubernetes quantity. It compares by value: `1024Mi` equals `1Gi`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

/// The text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuantity {
    /// It does not have the form of one.
    #[error("{0:?} is not a quantity, such as 4, 500m or 16Gi")]
    Malformed(String),
    /// Its magnitude is beyond 2⁶³−1.
    #[error("{0:?} is too large for a quantity")]
    TooLarge(String),
}

/// The family of suffixes that a quantity was written with, and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// `n u m k M G T P E`, or none.
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3`, `E-6` …
    Exponent,
}

const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Reads a quantity as Kubernetes does; digits below a billionth round away from zero.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        let malformed = || NotAQuantity::Malformed(text.to_owned());
        let too_large = || NotAQuantity::TooLarge(text.to_owned());
        let (is_negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(malformed());
        }
        let unit = Unit::parse(suffix).ok_or_else(malformed)?;
        let magnitude =
            unit.nanos(whole, fraction).filter(|nanos| *nanos <= LARGEST).ok_or_else(too_large)?;
        let nanos = if is_negative { -magnitude } else { magnitude };
        Ok(Self { nanos, notation: unit.notation }.settled())
    }

    /// Returns this many thousandths.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * 1_000_000, notation: Notation::Decimal }
    }

    /// Returns this many bytes, to be written with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS_PER_UNIT, notation: Notation::Binary }.settled()
    }

    /// Returns the number of bytes, where there is no fraction and it is not negative.
    pub fn whole_bytes(self) -> Option<u64> {
        let is_whole = self.nanos % NANOS_PER_UNIT == 0;
        u64::try_from(self.nanos / NANOS_PER_UNIT).ok().filter(|_| is_whole)
    }

    /// The exact value in billionths.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// A binary quantity that no binary suffix can write exactly is a decimal one from here on, so that reading the
    /// canonical text gives the same quantity again.
    fn settled(self) -> Self {
        let is_written_binary = self.nanos != 0 && self.nanos % (1024 * NANOS_PER_UNIT) == 0;
        match self.notation {
            Notation::Binary if !is_written_binary => Self { notation: Notation::Decimal, ..self },
            Notation::Binary | Notation::Decimal | Notation::Exponent => self,
        }
    }
}

/// What a suffix multiplies with: a power of ten or of two.
struct Unit {
    notation: Notation,
    exponent: i32,
}

impl Unit {
    fn parse(suffix: &str) -> Option<Self> {
        if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(known, _)| *known == suffix) {
            return Some(Self { notation: Notation::Decimal, exponent: *exponent });
        }
        if let Some(thousands) = BINARY_SUFFIXES.iter().position(|known| *known == suffix) {
            return Some(Self { notation: Notation::Binary, exponent: 10 * i32::try_from(thousands).ok()? });
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some(Self { notation: Notation::Exponent, exponent })
    }

    /// The value of `whole.fraction` of this unit in billionths, rounded up; `None` where it is far too large.
    fn nanos(&self, whole: &str, fraction: &str) -> Option<i128> {
        if whole.bytes().chain(fraction.bytes()).all(|digit| digit == b'0') {
            return Some(0);
        }
        let value = |digit: u8| i128::from(digit - b'0');
        let (unit, divisor) = self.in_nanos()?;
        let whole = whole
            .bytes()
            .try_fold(0_i128, |sum, digit| sum.checked_mul(10)?.checked_add(value(digit)))?
            .checked_mul(unit)?;
        // Rounding up at each digit gives the same as rounding up once at the end.
        let fraction = fraction.bytes().rev().fold(0, |sum, digit| divided_up(value(digit) * unit + sum, 10));
        Some(divided_up(whole.checked_add(fraction)?, divisor))
    }

    /// The unit in billionths, as a factor and a divisor; `None` where it is far too large.
    fn in_nanos(&self) -> Option<(i128, i128)> {
        let power = self.exponent.saturating_add(9);
        match self.notation {
            Notation::Binary => Some((NANOS_PER_UNIT << self.exponent, 1)),
            Notation::Decimal | Notation::Exponent if power >= 0 => Some((power_of_ten(power)?, 1)),
            Notation::Decimal | Notation::Exponent => {
                Some((1, power.checked_neg().and_then(power_of_ten).unwrap_or(i128::MAX)))
            }
        }
    }
}

/// Returns a power of ten of which nine times still fit, or `None`.
fn power_of_ten(exponent: i32) -> Option<i128> {
    u32::try_from(exponent).ok().filter(|exponent| *exponent <= 37).map(|exponent| 10_i128.pow(exponent))
}

fn divided_up(value: i128, divisor: i128) -> i128 {
    value / divisor + i128::from(value % divisor != 0)
}

impl fmt::Display for Quantity {
    /// Writes the canonical text: no fraction, the largest suffix of the same family that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.notation {
            _ if self.nanos == 0 => f.write_str("0"),
            Notation::Binary => {
                let (units, power) =
                    largest_unit(self.nanos / NANOS_PER_UNIT, 1024, BINARY_SUFFIXES.len() - 1);
                write!(f, "{units}{}", BINARY_SUFFIXES[power])
            }
            Notation::Decimal => {
                let (units, power) = largest_unit(self.nanos, 1000, DECIMAL_SUFFIXES.len() - 1);
                write!(f, "{units}{}", DECIMAL_SUFFIXES[power].0)
            }
            Notation::Exponent => {
                let (units, power) = largest_unit(self.nanos, 1000, DECIMAL_SUFFIXES.len() - 1);
                match DECIMAL_SUFFIXES[power].1 {
                    0 => write!(f, "{units}"),
                    exponent => write!(f, "{units}e{exponent}"),
                }
            }
        }
    }
}

/// Divides by `base` as long as nothing is lost, at most `limit` times.
fn largest_unit(mut value: i128, base: i128, limit: usize) -> (i128, usize) {
    let mut power = 0;
    while power < limit && value % base == 0 {
        value /= base;
        power += 1;
    }
    (value, power)
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap().to_string()
    }

    #[test]
    fn a_quantity_is_written_as_kubernetes_writes_it() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("007", "7"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("10000", "10k"),
            ("0.9", "900m"),
            (".5", "500m"),
            ("4.", "4"),
            ("1.5", "1500m"),
            ("2000m", "2"),
            ("100000m", "100"),
            ("1500m", "1500m"),
            ("0.5k", "500"),
            ("1.5G", "1500M"),
            ("9E", "9E"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("16Gi", "16Gi"),
            ("1000Mi", "1000Mi"),
            ("7Ei", "7Ei"),
            // Kubernetes, too, leaves the binary family where its suffixes would need a fraction.
            ("0.5Ki", "512"),
            ("1.5Ki", "1536"),
            ("0.0001Ki", "102400u"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("10e3", "10e3"),
            ("1e4", "10e3"),
            ("1500e0", "1500"),
            ("5e-1", "500e-3"),
            ("1e+2", "100"),
            ("0.1n", "1n"),
            ("1e-1000000", "1e-9"),
            ("-1.00000000001", "-1000000001n"),
            ("0.001e21", "1e18"),
            ("0e1000000", "0"),
            ("-2Gi", "-2Gi"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "+",
            "-",
            ".",
            " 1",
            "1 ",
            "1 Gi",
            "Gi",
            "1gi",
            "1K",
            "1kb",
            "1GiB",
            "1.2.3",
            "--1",
            "1e",
            "1e1.5",
            "0x10",
            "1mi",
            "NaN",
            "inf",
            "½",
            "1µ",
            "e3",
            "1e99999999999",
        ] {
            assert_eq!(Quantity::parse(text), Err(NotAQuantity::Malformed(text.to_owned())), "{text}");
        }
        for text in ["10E", "8Ei", "9223372036854775808", "1e19", "1e2147483647", &"9".repeat(100)] {
            assert_eq!(Quantity::parse(text), Err(NotAQuantity::TooLarge(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn quantities_compare_by_value() {
        let ascending =
            ["-1Gi", "-1", "0", "1n", "1u", "1m", "0.5", "1", "1k", "1Ki", "1M", "1Mi", "1G", "1Gi", "7Ei"];
        let parsed: Vec<_> = ascending.iter().map(|text| Quantity::parse(text).unwrap()).collect();
        assert!(parsed.is_sorted_by(|a, b| a < b));
        assert_eq!(Quantity::parse("1024Mi"), Quantity::parse("1073741824"));
        assert_eq!(Quantity::parse("0.5"), Ok(Quantity::from_milli(500)));
    }

    #[test]
    fn bytes_are_written_with_binary_suffixes() {
        assert_eq!(Quantity::from_bytes(3 << 30).to_string(), "3Gi");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_its_text_is_a_fixed_point(text in "[+-]?[0-9.]{0,40}([eEinumkKMGTP]{0,2}[-+]?[0-9]{0,3})") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let again = Quantity::parse(&quantity.to_string()).unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), quantity.to_string());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Quantity::parse(&text);
        }
    }
}
