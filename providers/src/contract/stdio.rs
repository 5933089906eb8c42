//! The `stdio` contract: stdout is the result, stderr is output that is kept, exit code 0 is success. Whoever asks for the output gets
//! all that was printed, in the order in which it came, however the run ended.

use std::time::Duration;

use bytes::BytesMut;
use protocol::invocation::{AnswerRule, Body, Ended, Outcome};
use protocol::{Invocation, Reply};

use super::headers::timed_out;
use crate::Error;
use crate::output::{Stream, Writer};

/// What one run has said so far.
#[derive(Debug)]
pub(crate) struct Run {
    result: BytesMut,
    answer_bytes_max: usize,
    /// Whether all that is printed is the result.
    is_output: bool,
    /// Bytes that were printed beyond the limit of an output.
    cut_bytes: u64,
    output: Writer,
}

impl Run {
    pub(crate) fn new(invocation: &Invocation, answer_bytes_max: usize, output: Writer) -> Self {
        let call = invocation.call.as_deref();
        Self {
            result: BytesMut::new(),
            answer_bytes_max,
            is_output: call.is_some_and(|call| call.answer == AnswerRule::Output),
            cut_bytes: 0,
            output,
        }
    }

    /// Takes a piece of stdout.
    ///
    /// # Errors
    /// When the result is larger than its limit. Of an output the beginning is kept.
    pub(crate) fn stdout(&mut self, piece: &[u8]) -> Result<(), Error> {
        if self.is_output {
            self.keep(piece);
            return Ok(());
        }
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
        if self.is_output {
            self.keep(piece);
        }
    }

    /// What the run comes to that ended by itself. `note` says why it was killed, if it was.
    ///
    /// # Errors
    /// [`Error::Failed`] with an exit code other than 0, unless the output was asked for.
    pub(crate) fn finish(mut self, exit_code: i64, note: Option<&str>) -> Result<Reply, Error> {
        self.output.flush();
        let is_ok = exit_code == 0;
        if self.is_output {
            let (outcome, why) = match is_ok {
                true => (Outcome::Ok, None),
                false => (Outcome::Failed, Some(describe_exit(exit_code, note, ""))),
            };
            return Ok(self.printed(outcome, Some(exit_code), why));
        }
        if is_ok {
            return Ok(Reply {
                status: 200,
                body: Body::Whole(self.result.freeze()),
                ..Reply::default()
            });
        }
        Err(Error::Failed {
            why: describe_exit(exit_code, note, &self.output.tail()),
            answered: None,
        })
    }

    /// What the run comes to that is stopped, since it is over its time limit.
    ///
    /// # Errors
    /// [`Error::TimedOut`], unless the output was asked for.
    pub(crate) fn stop(mut self, limit: Duration) -> Result<Reply, Error> {
        self.output.flush();
        let error = timed_out(limit);
        match self.is_output {
            true => Ok(self.printed(Outcome::Timeout, None, Some(error.to_string()))),
            false => Err(error),
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = self.answer_bytes_max - self.result.len();
        let (kept, cut) = piece.split_at(piece.len().min(room));
        self.result.extend_from_slice(kept);
        self.cut_bytes += cut.len() as u64;
    }

    fn printed(self, outcome: Outcome, exit_code: Option<i64>, why: Option<String>) -> Reply {
        let ended = Ended {
            outcome,
            exit_code,
            why,
            cut_bytes: self.cut_bytes,
        };
        Reply {
            status: 200,
            body: Body::Whole(self.result.freeze()),
            ended: Some(Box::new(ended)),
            ..Reply::default()
        }
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
