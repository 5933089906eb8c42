//! CORS configurations: what two nodes could decide differently.

use protocol::CorsRecord;

use super::*;

fn cors(path: &str) -> CorsRecord {
    let body = json!({"method": "GET", "path": path}).to_string();
    CorsRecord::parse("default", body.as_bytes()).unwrap()
}

#[tokio::test]
async fn of_two_configurations_whose_paths_conflict_one_wins_whatever_node_is_asked() {
    let (one, other, _) = two_nodes().await;
    for round in 0..20 {
        let second = if round % 2 == 0 { ":b" } else { ":a" };
        let (first, second) = tokio::join!(
            one.catalog.create_cors(cors(&format!("/{round}/:a"))),
            other
                .catalog
                .create_cors(cors(&format!("/{round}/{second}"))),
        );
        assert!(
            first.is_ok() != second.is_ok(),
            "round {round}: {first:?} {second:?}"
        );
        let refused = first.and(second);
        let is_expected = match round % 2 {
            0 => matches!(refused, Err(Error::CorsPath(_))),
            _ => matches!(refused, Err(Error::CorsExists(_))),
        };
        assert!(is_expected, "round {round}: {refused:?}");
    }
    assert_eq!(other.catalog.all_cors("default").await.unwrap().len(), 20);
    let registry = one.registry.get();
    assert!(registry.cors.find(None, "GET", "/7/x").is_some());
}
