//! Signals by their names and numbers.

use super::{Error, Result};

/// A signal by its name, with or without `SIG`, or its number.
pub(super) fn parse_signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>()
        && (0..=64).contains(&number)
    {
        return Ok(number);
    }
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    if let Ok(signal) = name.parse::<nix::sys::signal::Signal>() {
        return Ok(signal as i32);
    }
    // signal(7): real-time signals.
    let offset = |prefix: &str| {
        name.strip_prefix(prefix).and_then(|o| {
            if o.is_empty() {
                Some(0)
            } else {
                o.parse::<i32>().ok()
            }
        })
    };
    let number = offset("SIGRTMIN")
        .map(|o| libc::SIGRTMIN() + o)
        .or_else(|| offset("SIGRTMAX").map(|o| libc::SIGRTMAX() + o));
    number
        .filter(|n| (34..=64).contains(n))
        .ok_or_else(|| Error::Other(format!("unknown signal {text:?}")))
}

#[cfg(test)]
mod tests;
