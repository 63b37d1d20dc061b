//! The pod's errors as ttrpc statuses; containerd maps these back to its own kinds (`errgrpc`).

use ttrpc::{Code, Error as TtrpcError, get_status};

use crate::pod::Error;

fn code(e: &Error) -> Code {
    match e {
        Error::NotFound(_) => Code::NOT_FOUND,
        Error::AlreadyExists(_) => Code::ALREADY_EXISTS,
        Error::FailedPrecondition(_) => Code::FAILED_PRECONDITION,
        Error::InvalidArgument(_) => Code::INVALID_ARGUMENT,
        Error::Unimplemented(_) => Code::UNIMPLEMENTED,
        Error::Unknown(_) => Code::UNKNOWN,
    }
}

/// For `map_err`.
pub(super) fn status(e: Error) -> TtrpcError {
    TtrpcError::RpcStatus(get_status(code(&e), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code_and_keeps_its_words() {
        type Row = (fn(String) -> Error, Code);
        let table: [Row; 6] = [
            (Error::NotFound, Code::NOT_FOUND),
            (Error::AlreadyExists, Code::ALREADY_EXISTS),
            (Error::FailedPrecondition, Code::FAILED_PRECONDITION),
            (Error::InvalidArgument, Code::INVALID_ARGUMENT),
            (Error::Unimplemented, Code::UNIMPLEMENTED),
            (Error::Unknown, Code::UNKNOWN),
        ];
        for (make, code) in table {
            let TtrpcError::RpcStatus(s) = status(make("the words".into())) else {
                panic!("no status")
            };
            assert_eq!((s.code(), s.message.as_str()), (code, "the words"));
        }
    }
}
