//! The `stdio` contract: stdout is the result, stderr is output that is kept, exit code 0 is success.

use bytes::BytesMut;
use protocol::Reply;
use protocol::invocation::Body;

use crate::Error;
use crate::output::{Stream, Writer};

/// What one run has said so far.
#[derive(Debug)]
pub(crate) struct Run {
    result: BytesMut,
    answer_bytes_max: usize,
    output: Writer,
}

impl Run {
    pub(crate) fn new(answer_bytes_max: usize, output: Writer) -> Self {
        Self {
            result: BytesMut::new(),
            answer_bytes_max,
            output,
        }
    }

    /// Takes a piece of stdout.
    ///
    /// # Errors
    /// When the result is larger than its limit.
    pub(crate) fn stdout(&mut self, piece: &[u8]) -> Result<(), Error> {
        if self.result.len() + piece.len() > self.answer_bytes_max {
            return Err(Error::AnswerTooLarge {
                bytes_max: self.answer_bytes_max as u64,
            });
        }
        self.result.extend_from_slice(piece);
        Ok(())
    }

    /// Takes a piece of stderr.
    pub(crate) fn stderr(&mut self, piece: &[u8]) {
        self.output.write(Stream::Stderr, piece, None);
    }

    /// What the run comes to. `note` says why it was killed, if it was.
    pub(crate) fn finish(mut self, exit_code: i64, note: Option<&str>) -> Result<Reply, Error> {
        self.output.flush();
        if exit_code == 0 {
            let body = Body::Whole(self.result.freeze());
            return Ok(Reply {
                status: 200,
                content_type: None,
                headers: Vec::new(),
                body,
            });
        }
        Err(Error::Failed {
            why: describe_exit(exit_code, note, &self.output.tail()),
            answered: None,
        })
    }
}

/// Says how something ended: `exit code 3, out of memory: the end of its output`.
pub(crate) fn describe_exit(exit_code: i64, note: Option<&str>, tail: &str) -> String {
    let mut text = format!("exit code {exit_code}");
    if let Some(note) = note {
        text.push_str(", ");
        text.push_str(note);
    }
    if !tail.is_empty() {
        text.push_str(": ");
        text.push_str(tail);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exit_code: i64, note: Option<&str>, tail: &str, expected: &str) {
        assert_eq!(describe_exit(exit_code, note, tail), expected);
    }

    #[test]
    fn an_end_is_told_with_what_is_known_of_it() {
        check(3, None, "", "exit code 3");
        check(3, None, "no such file", "exit code 3: no such file");
        check(
            137,
            Some("out of memory"),
            "",
            "exit code 137, out of memory",
        );
    }
}
