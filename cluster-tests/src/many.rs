//! Many functions and subscriptions at once, which the API would take one after the other.

use serde_json::{Value, json};

use crate::record::Record;
use crate::sandbox::Sandbox;

/// Makes so many webhook functions and subscriptions, an even number: the first two of each through the API, and the others through the
/// store, in their form.
///
/// # Panics
/// When one is refused.
pub async fn create(sandbox: &Sandbox, count: usize, url: &str) {
    for at in [0, 1] {
        let function = Record::http(&format!("function-{at}"), url);
        sandbox.register(&function).await;
        sandbox.subscribe(&subscription(at)).await;
    }
    multiply(sandbox, count).await;
}

/// Half are http events of one method, half custom events with ten subscribers each.
fn subscription(at: usize) -> Value {
    let function = format!("function-{at}");
    match at % 2 {
        0 => {
            json!({"event": "http", "functionId": function, "method": "GET", "path": format!("/resource-{at}/:id")})
        }
        _ => json!({"event": format!("event.{}", at / 20), "functionId": function}),
    }
}

/// Makes as many records as that through the store, in the form of the first ones, which were made through the API.
async fn multiply(sandbox: &Sandbox, count: usize) {
    let etcd = sandbox.etcd();
    for kind in ["functions", "subscriptions"] {
        let samples = etcd
            .get_all(&format!("hearth/{}/{kind}/", sandbox.id()))
            .await;
        let copies = samples.iter().flat_map(|(key, value)| {
            // A sample of the function 0 is of all even numbers, that of 1 of all odd ones.
            let is_odd = usize::from(value.contains("function-1\""));
            (is_odd + 2..count).step_by(2).map(move |at| {
                let other = |text: &str| {
                    let text =
                        text.replace(&format!("function-{is_odd}"), &format!("function-{at}"));
                    let text = text.replace("resource-0", &format!("resource-{at}"));
                    text.replace("event.0", &format!("event.{}", at / 20))
                };
                (other(key), other(value))
            })
        });
        etcd.put_all(copies).await;
    }
}
