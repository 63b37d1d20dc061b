//! What a process that sets itself up and its parent say to each other, over a socket pair of type `SOCK_SEQPACKET`: one message in one
//! packet.
//!
//! The process speaks first. It reports a failure and exits; or it asks a question or hands something over, and then waits for
//! the answer, which is one byte ([`GO_ON`]). Its end closes when its program is executed: that is how the parent learns that it was.
//!
//! Messages are encoded without allocating, because the process must not (see `executor/child`).

/// The parent's answer: the process may go on. There is no other one; a process whose socket closes instead exits.
pub(super) const GO_ON: u8 = b'g';

/// Bytes of the longest message.
pub(super) const LONGEST: usize = 1024;

/// The operation that failed where the mount of a program keeps it from being executed.
pub(super) const NO_EXEC: &str = "noexec";

const FAILED: u8 = b'F';
const ASKS: u8 = b'A';
const TERMINAL: u8 = b'T';
const SIBLING: u8 = b'S';
const LISTENER: u8 = b'L';
const HOOK_FAILED: u8 = b'H';

/// A question. The process goes on when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Question {
    /// Run the prestart, createRuntime and createContainer hooks. With a descriptor of the node's root.
    CreateHooks = 1,
    /// Everything is ready: may the program be executed?
    Gate = 2,
    /// Move the network devices here.
    NetDevices = 3,
}

/// A message of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// It asks, and waits.
    Asks(Question),
    /// It cannot go on, and exits.
    Failed {
        /// The number of the step in its script; one more than there are for the execution of the program.
        step: u16,
        /// The system call that failed.
        op: &'a str,
        /// The error number.
        number: i32,
    },
    /// A startContainer hook has failed, and the process exits.
    HookFailed {
        /// The number of the step.
        step: u16,
        /// The hook's wait status.
        status: i32,
        /// The beginning of what it wrote to its standard error.
        said: &'a [u8],
    },
    /// The master of its terminal, as a descriptor beside the message.
    Terminal,
    /// Another process with this pid, a child of the same parent, goes on in its place: its pidfd is beside the message.
    Sibling(i32),
    /// Its seccomp filter is loaded, and has this descriptor of the process for notifications. It waits until somebody has taken it.
    Listener(i32),
}

impl<'a> Message<'a> {
    /// Writes the message into `buffer`, and returns the part that is to be sent. A long name of a system call is cut.
    pub(crate) fn encode<'b>(&self, buffer: &'b mut [u8; LONGEST]) -> &'b [u8] {
        let mut length = 0;
        let mut put = |bytes: &[u8]| {
            for (to, from) in buffer.iter_mut().skip(length).zip(bytes) {
                *to = *from;
            }
            length = LONGEST.min(length + bytes.len());
        };
        match self {
            Self::Asks(question) => put(&[ASKS, *question as u8]),
            Self::Failed { step, op, number } => {
                put(&[FAILED]);
                put(&step.to_le_bytes());
                put(&number.to_le_bytes());
                put(op.as_bytes());
            }
            Self::HookFailed { step, status, said } => {
                put(&[HOOK_FAILED]);
                put(&step.to_le_bytes());
                put(&status.to_le_bytes());
                put(said);
            }
            Self::Terminal => put(&[TERMINAL]),
            Self::Sibling(pid) => {
                let [a, b, c, d] = pid.to_le_bytes();
                put(&[SIBLING, a, b, c, d])
            }
            Self::Listener(number) => {
                put(&[LISTENER]);
                put(&number.to_le_bytes());
            }
        }
        buffer.get(..length).unwrap_or_default()
    }

    /// Reads a message; `None` if it is none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        Some(match bytes {
            [ASKS, question] => Self::Asks(match question {
                1 => Question::CreateHooks,
                2 => Question::Gate,
                3 => Question::NetDevices,
                _ => return None,
            }),
            [FAILED, s0, s1, n0, n1, n2, n3, op @ ..] => Self::Failed {
                step: u16::from_le_bytes([*s0, *s1]),
                number: i32::from_le_bytes([*n0, *n1, *n2, *n3]),
                op: std::str::from_utf8(op).ok()?,
            },
            [HOOK_FAILED, s0, s1, n0, n1, n2, n3, said @ ..] => Self::HookFailed {
                step: u16::from_le_bytes([*s0, *s1]),
                status: i32::from_le_bytes([*n0, *n1, *n2, *n3]),
                said,
            },
            [TERMINAL] => Self::Terminal,
            [SIBLING, a, b, c, d] => Self::Sibling(i32::from_le_bytes([*a, *b, *c, *d])),
            [LISTENER, a, b, c, d] => Self::Listener(i32::from_le_bytes([*a, *b, *c, *d])),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_was() {
        let failed = |step, op, number| Message::Failed { step, op, number };
        for message in [
            Message::Asks(Question::CreateHooks),
            Message::Asks(Question::Gate),
            Message::Asks(Question::NetDevices),
            failed(0, "mount", 13),
            failed(u16::MAX, "", i32::MIN),
            Message::HookFailed {
                step: 258,
                status: -1,
                said: b"no \xff text",
            },
            Message::Terminal,
            Message::Sibling(7),
            Message::Listener(7),
            Message::Listener(i32::MAX),
        ] {
            let mut buffer = [0; LONGEST];
            assert_eq!(Message::decode(message.encode(&mut buffer)), Some(message));
        }
    }

    #[test]
    fn a_long_name_is_cut_and_nothing_else_is_understood() {
        let long = "x".repeat(2000);
        let message = Message::Failed {
            step: 1,
            op: &long,
            number: 2,
        };
        let mut buffer = [0; LONGEST];
        let Some(Message::Failed { op, .. }) = Message::decode(message.encode(&mut buffer)) else {
            panic!("it is a failure");
        };
        assert_eq!(op.len(), LONGEST - 7);
        for bytes in [
            &b""[..],
            b"A",
            b"A\x09",
            b"A\x01\x01",
            b"F\0\0",
            b"T1",
            b"L\0",
            b"?",
            b"F\0\0\0\0\0\0\xff",
        ] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
    }
}
