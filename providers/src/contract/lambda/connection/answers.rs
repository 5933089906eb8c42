//! What a runtime tells: the answer of an invocation, its error, or that it can not begin.

use protocol::InvocationId;
use tokio::sync::oneshot;

use super::{Connection, NoBody, Said};
use crate::contract::lambda::function_error::{FunctionError, describe};
use crate::contract::lambda::request::Request;
use crate::contract::lambda::shared::Answer;
use crate::contract::lambda::state::Refused;
use crate::contract::lambda::stream::Streaming;
use crate::http1::{Rest, answer::Framing};

/// The mode of answers that come piece by piece.
const STREAMING: &str = "streaming";

impl Connection {
    /// `POST …/{id}/response`.
    pub(super) async fn response(mut self, mut request: Request, id: &str) -> Option<Self> {
        let (id, may_stream) = match self.find(id) {
            Ok(found) => found,
            Err(refused) => return self.refuse_answer(request.body, refused, id).await,
        };
        let is_streaming = match request.response_mode.as_deref() {
            None | Some("") => false,
            Some(STREAMING) => true,
            Some(other) => {
                let why = format!(
                    "Lambda-Runtime-Function-Response-Mode is {other:?}, expected \"{STREAMING}\" or nothing"
                );
                let _ = self.shared.answer(&id, Answer::Malformed(why.clone()));
                let status = "400 Bad Request";
                let said = Said::refused(status, "InvalidFunctionResponseMode", why);
                return self.refuse(request.body, &said).await;
            }
        };
        if is_streaming && may_stream {
            return self.stream(request, &id).await;
        }
        let body = match self.body(&mut request.body, request.expects_continue).await {
            Ok(body) => body,
            Err(no_body) => return self.refuse_body(&no_body, &id).await,
        };
        let answer = match FunctionError::behind(|name| request.body.trailer(name)) {
            Some(error) => Answer::Failed(error),
            None => Answer::Whole {
                content_type: request.content_type,
                body,
            },
        };
        self.take(&id, answer).await
    }

    /// `POST …/{id}/error`.
    pub(super) async fn error(mut self, mut request: Request, id: &str) -> Option<Self> {
        let id = match self.find(id) {
            Ok((id, _)) => id,
            Err(refused) => return self.refuse_answer(request.body, refused, id).await,
        };
        let body = match self.body(&mut request.body, request.expects_continue).await {
            Ok(body) => body,
            Err(no_body) => return self.refuse_body(&no_body, &id).await,
        };
        let error = FunctionError::new(request.error_type, body);
        self.take(&id, Answer::Failed(error)).await
    }

    /// `POST …/init/error`: a start that failed. Where several parts of a runtime begin at once the first counts.
    pub(super) async fn init_error(mut self, mut request: Request) -> Option<Self> {
        let Ok(body) = self.body(&mut request.body, request.expects_continue).await else {
            return None;
        };
        let error = FunctionError::new(request.error_type, body);
        let why = format!("its runtime failed to initialise: {}", describe(&error));
        let said = match self.shared.fail_init(why) {
            true => Said::Accepted,
            false => Said::refused(
                "403 Forbidden",
                "InvalidStateTransition",
                "it has begun, or said already that it can not",
            ),
        };
        self.say(&said, true).await.then_some(self)
    }

    /// Passes an answer on as it comes. The connection goes with it, and comes back at its end.
    async fn stream(self, request: Request, id: &InvocationId) -> Option<Self> {
        let is_waiting = request.expects_continue && self.read.is_empty();
        if is_waiting && self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
            return None;
        }
        let shared = std::sync::Arc::clone(&self.shared);
        let (given_back, back) = oneshot::channel();
        let rest = Rest::new(request.body, shared.limits.stream);
        let streaming = Streaming {
            connection: self,
            rest,
            content_type: request.content_type,
            given_back,
        };
        // Answered twice at the same moment: this one comes too late, and its connection goes.
        if let Err(refused) = shared.answer(id, Answer::Stream(Box::new(streaming))) {
            if refused == Refused::Twice {
                shared.break_off(&twice(id.as_str()));
            }
            return None;
        }
        let mut connection = back.await.ok()?;
        connection
            .say(&Said::Accepted, true)
            .await
            .then_some(connection)
    }

    /// Hands an answer over, and says that it was taken.
    async fn take(mut self, id: &InvocationId, answer: Answer) -> Option<Self> {
        if let Err(refused) = self.shared.answer(id, answer) {
            return self
                .refuse_answer(Framing::Length(0), refused, id.as_str())
                .await;
        }
        self.say(&Said::Accepted, true).await.then_some(self)
    }

    /// The invocation of a path, and whether its answer may come piece by piece.
    fn find(&self, id: &str) -> Result<(InvocationId, bool), Refused> {
        let id: InvocationId = id.parse().map_err(|_| Refused::Unknown)?;
        let may_stream = self.shared.look(&id)?;
        Ok((id, may_stream))
    }

    /// Refuses an answer to what does not run; the runtime that gave it is not to be trusted with more.
    async fn refuse_answer(self, body: Framing, refused: Refused, id: &str) -> Option<Self> {
        let said = match refused {
            Refused::Unknown => {
                let id: String = id.chars().take(64).collect();
                let why = format!("it answered {id:?}, which it was not given");
                self.shared.break_off(&why);
                Said::refused("400 Bad Request", "InvalidRequestID", "Invalid request ID")
            }
            Refused::Twice => {
                self.shared.break_off(&twice(id));
                Said::refused("400 Bad Request", "InvalidRequestID", "Invalid request ID")
            }
            Refused::Late => Said::refused("410 Gone", "InvokeTimeout", "Invoke timeout"),
        };
        self.refuse(body, &said).await
    }

    /// An answer that is too large, or was not whole.
    async fn refuse_body(mut self, no_body: &NoBody, id: &InvocationId) -> Option<Self> {
        let said = match no_body {
            NoBody::TooLarge => {
                let bytes_max = self.shared.limits.whole;
                let _ = self.shared.answer(id, Answer::TooLarge);
                let message = format!("Exceeded maximum allowed payload size ({bytes_max} bytes).");
                Said::refused(
                    "413 Request Entity Too Large",
                    "RequestEntityTooLarge",
                    message,
                )
            }
            // The runtime may send it again.
            NoBody::Broken => {
                let message = "HTTP request detected as truncated";
                Said::refused("400 Bad Request", "TruncatedHTTPRequest", message)
            }
        };
        self.say(&said, false).await;
        self.linger().await;
        None
    }

    /// Reads on for a moment, so that the other side gets what was said instead of a broken connection.
    async fn linger(&mut self) {
        let within = self.shared.lambda.request_timeout.min(LINGER_TIMEOUT);
        let read = async {
            loop {
                self.read.clear();
                match self.fill().await {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(within, read).await;
    }
}

/// How long a connection is read on that is to be closed.
const LINGER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

fn twice(id: &str) -> String {
    format!("it answered {id} twice")
}
