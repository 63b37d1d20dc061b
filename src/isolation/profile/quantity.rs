//! Numbers as Kubernetes writes them: resource.Quantity of its API, beside plain numbers.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use super::schema::Limit;

/// What a suffix multiplies with.
const SUFFIXES: [(&str, f64); 13] = [
    ("", 1.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];

/// A quantity, in units of 1 / `scale`. Rounded up, as Kubernetes does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is from 0 to 2^63"
)]
fn parse(text: &str, scale: f64) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let number: f64 = digits.parse().ok()?;
    let factor = match suffix {
        "m" => Some(0.001),
        suffix => SUFFIXES.iter().find(|(s, _)| *s == suffix).map(|(_, f)| *f),
    };
    let value = (number * factor? * scale * 1e6).round() / 1e6;
    (0.0..9.2e18).contains(&value).then(|| value.ceil() as u64)
}

/// A number of what is counted in units of 1 / `scale`.
struct Number {
    scale: u16,
}

impl Visitor<'_> for Number {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.scale == 1 {
            "a number, or a quantity like \"8Gi\" or \"500M\""
        } else {
            "a number of processors, like 2, 0.5 or \"500m\""
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        let number = u64::try_from(value).ok();
        let scaled = number.and_then(|n| n.checked_mul(self.scale.into()));
        scaled.ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        let scaled = value.checked_mul(self.scale.into());
        scaled.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        let scaled = parse(&value.to_string(), self.scale.into()).filter(|_| self.scale > 1);
        scaled.ok_or_else(|| E::invalid_type(Unexpected::Float(value), &self))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        let scaled = parse(value, self.scale.into());
        scaled.ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
    }
}

/// A number, or a quantity.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from.deserialize_any(Number { scale: 1 }).map(Some)
}

fn processors<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from.deserialize_any(Number { scale: 1000 }).map(Some)
}

/// A limit of processors, kept in thousandths.
pub(super) mod cpu {
    use super::{Deserialize, Deserializer, Limit, Serializer, processors};

    #[derive(Default, Deserialize, serde::Serialize)]
    #[serde(default, deny_unknown_fields, expecting = "{ default = N, max = N }")]
    struct OfCpu {
        #[serde(
            deserialize_with = "processors",
            skip_serializing_if = "Option::is_none"
        )]
        default: Option<u64>,
        #[serde(
            deserialize_with = "processors",
            skip_serializing_if = "Option::is_none"
        )]
        max: Option<u64>,
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Limit, D::Error> {
        let OfCpu { default, max } = OfCpu::deserialize(from)?;
        Ok(Limit { default, max })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        limit: &Limit,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = to.serialize_map(None)?;
        for (key, value) in [("default", limit.default), ("max", limit.max)] {
            if let Some(value) = value {
                map.serialize_entry(key, &format!("{value}m"))?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("8Gi", Some(8 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("1k", Some(1000)),
            ("1500m", Some(2)),
            ("1K", None),
            ("8GiB", None),
            ("-1", None),
            ("", None),
            (".", None),
            ("1e400", None),
            ("99Ei", None),
        ] {
            assert_eq!(parse(text, 1.0), bytes, "{text:?}");
        }
        for (text, thousandths) in [("500m", 500), ("2", 2000), ("0.1", 100), ("1.5", 1500)] {
            assert_eq!(parse(text, 1000.0), Some(thousandths), "{text:?}");
        }
    }
}
