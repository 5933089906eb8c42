//! Calls the function that the payload names: `{"function_name":"hello","payload":{"name":"Ada"}}` is answered with what that
//! function answered. Then it emits the event `chain.called` with that answer, for whoever subscribed.

mod http;
mod node;

use std::io;

use node::Node;

fn main() -> io::Result<()> {
    let node = Node::from_environment().map_err(io::Error::other)?;
    http::serve(move |payload, stream| match call(&node, payload) {
        Ok((200, answer)) => http::answer(stream, 200, &answer),
        // What went wrong is the node's or the called function's to say.
        Ok((_, answer)) => http::answer(stream, 502, &answer),
        Err(error) => {
            eprintln!("the node can not be called: {error}");
            http::answer(stream, 502, r#"{"error":"the node can not be called"}"#)
        }
    })
}

/// The payload has the form of a body of `POST /invoke` already, so it is passed on as it is.
fn call(node: &Node, payload: &[u8]) -> io::Result<(u16, String)> {
    let (status, answer) = node.post("/invoke", &[], payload)?;
    if status == 200 {
        let event = [("event", "chain.called")];
        let (status, why) = node.post("/", &event, answer.as_bytes())?;
        if status != 202 {
            eprintln!("the event was not taken: {status} {why}");
        }
    }
    Ok((status, answer))
}
